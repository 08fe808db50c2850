#include "sandbox/slot_processes.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/cgroup_files.h"

namespace pulga {
namespace {

namespace files = cgroup_files;

// The state of /proc/PID/stat, behind a name that may hold anything; 'X' once it is gone.
char StateOf(pid_t pid) {
  const auto stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  if (!stat.ok()) return 'X';
  const size_t name_end = stat->rfind(") ");
  return name_end == std::string::npos || name_end + 2 >= stat->size() ? '?'
                                                                       : (*stat)[name_end + 2];
}

struct Range {
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

// Of a line of /proc/PID/maps: private and anonymous, or written to since it was mapped, maybe.
std::optional<Range> OwnRange(std::string_view line) {
  const auto fields = Split(line, ' ');
  if (fields.size() < 5 || fields[1].size() != 4 || fields[1][3] != 'p') return std::nullopt;
  const bool anonymous = fields[4] == "0";
  if (!anonymous && fields[1][1] != 'w') return std::nullopt;
  const size_t dash = fields[0].find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  Range range;
  const char* const line_end = fields[0].data() + fields[0].size();
  std::from_chars(fields[0].data(), fields[0].data() + dash, range.begin, 16);
  std::from_chars(fields[0].data() + dash + 1, line_end, range.end, 16);
  if (range.begin >= range.end) return std::nullopt;
  return range;
}

// What is locked, or the kernel's own in there, stays where it is.
bool StaysInMemory(int error) { return error == EINVAL || error == ENOMEM || error == EFAULT; }

int PushOut(pid_t pid, int pidfd, const std::function<bool()>& wanted) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  std::string line;
  while (std::getline(maps, line)) {
    const auto range = OwnRange(line);
    if (!range) continue;
    if (!wanted()) return ECANCELED;
    const iovec all = {reinterpret_cast<void*>(range->begin), range->end - range->begin};
    if (PULGA_SYS(sys::ProcessMadvise, pidfd, &all, 1, MADV_PAGEOUT) >= 0) continue;
    if (errno == ESRCH) return 0;
    if (!StaysInMemory(errno)) return errno;
  }
  return 0;
}

}  // namespace

bool StopProcesses(const std::string& directory, std::string_view mark) {
  (void)files::SignalProcesses(directory, mark, SIGSTOP);
  return AllStopped(directory);
}

void ContinueProcesses(const std::string& directory, std::string_view mark) {
  (void)files::SignalProcesses(directory, mark, SIGCONT);
}

bool AllStopped(const std::string& directory) {
  for (const pid_t pid : files::ListProcesses(directory)) {
    constexpr std::string_view kStill = "TtZX";
    if (kStill.find(StateOf(pid)) == std::string_view::npos) return false;
  }
  return true;
}

bool CanPushOutPages() {
  return PULGA_SYS(sys::ProcessMadvise, -1, nullptr, 0, MADV_PAGEOUT) >= 0 || errno != ENOSYS;
}

int PushOutPages(const std::string& directory, std::string_view mark,
                 const std::function<bool()>& wanted) {
  int first = 0;
  for (const pid_t pid : files::ListProcesses(directory)) {
    const UniqueFd pidfd = files::OpenMember(pid, mark);
    if (!pidfd.valid()) continue;
    const int failed = PushOut(pid, pidfd.get(), wanted);
    if (failed == ECANCELED) return failed;
    if (first == 0) first = failed;
  }
  return first;
}

}  // namespace pulga
