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

// The pidfd is opened first: if the pid still is in our cgroup afterwards, it is that process.
// Without pidfds (before Linux 5.3) the pid alone has to do, looked at a moment before. Returns an
// empty one then, and when nothing was killed.
UniqueFd KillMember(pid_t pid, std::string_view mark) {
  UniqueFd fd(PULGA_SYS(sys::PidfdOpen, pid));
  const bool by_pid = !fd.valid() && errno == ENOSYS;
  if (!fd.valid() && !by_pid) return fd;
  const auto text = ReadFile("/proc/" + std::to_string(pid) + "/cgroup");
  if (!text.ok() || text->find(mark) == std::string::npos) return UniqueFd();
  const int killed =
      by_pid ? kill(pid, SIGKILL) : PULGA_SYS(sys::PidfdSendSignal, fd.get(), SIGKILL);
  return killed == 0 ? std::move(fd) : UniqueFd();
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

std::vector<UniqueFd> KillProcesses(const std::string& directory, std::string_view mark) {
  std::vector<UniqueFd> killed;
  for (const std::string& path : ListDeepestFirst(directory)) {
    const auto procs = ReadFile(path + "/cgroup.procs");
    if (!procs.ok()) continue;
    for (const std::string_view line : Split(*procs, '\n')) {
      const auto pid = ParseUint(line, INT32_MAX);
      if (!pid || *pid == 0) continue;
      UniqueFd fd = KillMember(static_cast<pid_t>(*pid), mark);
      if (fd.valid()) killed.push_back(std::move(fd));
    }
  }
  return killed;
}

}  // namespace pulga::cgroup_files
