#include "sandbox/cgroup_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga::cgroup_files {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

void Collect(const std::string& directory, std::vector<std::string>& out) {
  UniqueFd fd(PULGA_SYS(open, directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::unique_ptr<DIR, CloseDir> dir(fdopendir(fd.get()));
  if (!dir) {  // what can not be looked into may still be removed, or its removal tells why not
    if (errno != ENOENT && errno != ENOTDIR) out.push_back(directory);
    return;
  }
  (void)fd.Release();
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (entry->d_type != DT_DIR || name == "." || name == "..") continue;
    Collect(directory + "/" + entry->d_name, out);
  }
  out.push_back(directory);
}

bool IsMember(pid_t pid, std::string_view mark) {
  const auto text = ReadFile("/proc/" + std::to_string(pid) + "/cgroup");
  return text.ok() && text->find(mark) != std::string::npos;
}

// Without pidfds (before Linux 5.3) the pid alone has to do, looked at a moment before. Returns an
// empty one then, and when there was nobody.
UniqueFd SignalMember(pid_t pid, std::string_view mark, int signo) {
  UniqueFd fd = OpenMember(pid, mark);
  if (fd.valid()) {
    return PULGA_SYS(sys::PidfdSendSignal, fd.get(), signo) == 0 ? std::move(fd) : UniqueFd();
  }
  if (errno == ENOSYS && IsMember(pid, mark)) (void)kill(pid, signo);
  return UniqueFd();
}

}  // namespace

Status Make(const std::string& directory) {
  if (PULGA_SYS(mkdir, directory.c_str(), 0755) == 0 || errno == EEXIST) return OkStatus();
  return LastError("create cgroup " + directory);
}

Status Write(const std::string& path, std::string_view value) {
  const UniqueFd fd(PULGA_SYS(open, path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return LastError("open " + path);
  ssize_t n = -1;
  do {  // a limit of memory that has to be made room for gives up at a signal
    n = PULGA_SYS(write, fd.get(), value.data(), value.size());
  } while (n < 0 && errno == EINTR);
  if (n != static_cast<ssize_t>(value.size())) {
    return LastError("write \"" + std::string(value) + "\" to " + path);
  }
  return OkStatus();
}

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

Result<UniqueFd> Open(const std::string& path, int flags) {
  UniqueFd fd(PULGA_SYS(open, path.c_str(), flags | O_CLOEXEC));
  if (!fd.valid()) return LastError("open " + path);
  return fd;
}

std::vector<std::string> ListDeepestFirst(const std::string& directory) {
  std::vector<std::string> out;
  Collect(directory, out);
  return out;
}

Status RemoveDeepestFirst(const std::string& directory) {
  Status first;
  for (const std::string& path : ListDeepestFirst(directory)) {
    if (PULGA_SYS(rmdir, path.c_str()) == 0 || errno == ENOENT || !first.ok()) continue;
    Error error = LastError("remove cgroup " + path);
    if (error.sys_errno == EBUSY) error.code = Code::kUnavailable;
    first = std::move(error);
  }
  return first;
}

std::vector<pid_t> ListProcesses(const std::string& directory) {
  std::vector<pid_t> pids;
  const auto procs = ReadFile(directory + "/cgroup.procs");
  if (!procs.ok()) return pids;
  for (const std::string_view line : Split(*procs, '\n')) {
    const auto pid = ParseUint(line, INT32_MAX);
    if (pid && *pid != 0) pids.push_back(static_cast<pid_t>(*pid));
  }
  return pids;
}

// If the pid still is in our cgroup once it is open, it is that process.
UniqueFd OpenMember(pid_t pid, std::string_view mark) {
  UniqueFd fd(PULGA_SYS(sys::PidfdOpen, pid));
  if (!fd.valid() || IsMember(pid, mark)) return fd;
  errno = ESRCH;
  return UniqueFd();
}

std::vector<UniqueFd> SignalProcesses(const std::string& directory, std::string_view mark,
                                      int signo) {
  std::vector<UniqueFd> signalled;
  for (const std::string& path : ListDeepestFirst(directory)) {
    for (const pid_t pid : ListProcesses(path)) {
      UniqueFd fd = SignalMember(pid, mark, signo);
      if (fd.valid()) signalled.push_back(std::move(fd));
    }
  }
  return signalled;
}

}  // namespace pulga::cgroup_files
