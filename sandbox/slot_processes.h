// The processes of one slot, one by one: stopped and continued where no cgroup freezer is, their
// pages pushed out where no file of its cgroup does that. Launcher only; `directory` is the slot's
// in any hierarchy, `mark` what the path of each member's cgroup holds (cgroup_files.h).
// Source: signal(7), process_madvise(2) (Linux 5.10), madvise(2) MADV_PAGEOUT.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace pulga {

// One pass of SIGSTOP over all of them. False: some may run still, for a child they were just
// making or a call that is not interrupted; pass again a little later. What is stopped makes no
// children, so true stays true. Reads /proc: some 20 us for each process.
[[nodiscard]] bool StopProcesses(const std::string& directory, std::string_view mark);
void ContinueProcesses(const std::string& directory, std::string_view mark);
// Each is stopped, or dead.
bool AllStopped(const std::string& directory);

// Whether this kernel has process_madvise.
bool CanPushOutPages();
// Asks for every page of their own (no file's) to go to swap: 0, or the errno; ECANCELED once
// `wanted` is false. Takes as long as that takes.
int PushOutPages(const std::string& directory, std::string_view mark,
                 const std::function<bool()>& wanted);

}  // namespace pulga
