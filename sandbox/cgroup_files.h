// The few file operations cgroups are made of: directories made and removed, one value written,
// processes listed and killed. Knows neither v1 nor v2. Launcher only.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga::cgroup_files {

// An existing directory is fine (a hierarchy may have been prepared).
Status Make(const std::string& directory);
// The error names file and value.
Status Write(const std::string& path, std::string_view value);
bool Exists(const std::string& path);
Result<UniqueFd> Open(const std::string& path, int flags);

// The directory itself and all below it, deepest first; empty when there is none.
std::vector<std::string> ListDeepestFirst(const std::string& directory);
// rmdir of all of them. kUnavailable while processes are left inside.
Status RemoveDeepestFirst(const std::string& directory);

// Those in `directory` itself; empty where it cannot be read.
std::vector<pid_t> ListProcesses(const std::string& directory);
// A pidfd, if that process belongs to a cgroup whose path holds `mark`. Follows pid reuse
// correctly.
UniqueFd OpenMember(pid_t pid, std::string_view mark);
// Sends the signal to every process in `directory` and below that is such a member; returns their
// pidfds, readable once they are dead.
std::vector<UniqueFd> SignalProcesses(const std::string& directory, std::string_view mark,
                                      int signo);

}  // namespace pulga::cgroup_files
