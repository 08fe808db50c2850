#include "base/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_io.h"
#include "base/sys.h"

namespace pulga {

Result<PidFd> PidFd::OfChild(pid_t pid) {
  PidFd out;
  out.fd_.Reset(PULGA_SYS(sys::PidfdOpen, pid));
  if (!out.fd_.valid() && errno != ENOSYS) return LastError("pidfd_open");
  if (!out.fd_.valid()) {
    PULGA_ASSIGN_OR_RETURN(out.event_, ExitEvent::OfChild(pid));
  }
  out.pid_ = pid;
  return out;
}

Status PidFd::Signal(int signo) const {
  if (!valid()) return Error{Code::kNotFound, ESRCH, "signal: no such process"};
  if (fd_.valid() && sys::PidfdSendSignal(fd_.get(), signo) == 0) return OkStatus();
  if (fd_.valid() && errno != ENOSYS) return LastError("pidfd_send_signal");
  if (kill(pid_, signo) != 0) return LastError("kill");  // ours until it is reaped
  return OkStatus();
}

Result<ExitInfo> PidFd::Reap() {
  if (!valid()) return Error{Code::kNotFound, ESRCH, "reap: no such process"};
  ExitInfo info;
  pid_t got;
  do {
    got = wait4(pid_, &info.wait_status, __WALL, &info.usage);
  } while (got < 0 && errno == EINTR);
  fd_.Reset();
  event_ = ExitEvent();
  pid_ = -1;
  if (got < 0) return LastError("wait4");
  return info;
}

namespace {

constexpr size_t kMaxSpawnFds = 32;

[[noreturn]] void TellAndExit(int error_fd) {
  const int saved = errno;
  (void)!write(error_fd, &saved, sizeof saved);
  _exit(127);
}

void CloseFrom(unsigned first, unsigned last) {
  if (sys::CloseRange(first, last, 0) == 0) return;
  rlimit limit = {};  // Linux before 5.9; every fd of ours is below the hard limit
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  for (unsigned fd = first; fd <= last && fd < limit.rlim_max; ++fd) close(static_cast<int>(fd));
}

void CloseAllOnExec() {
  if (sys::CloseRange(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
  rlimit limit = {};  // Linux before 5.11
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  for (rlim_t fd = 3; fd < limit.rlim_max; ++fd) fcntl(static_cast<int>(fd), F_SETFD, FD_CLOEXEC);
}

[[noreturn]] void ExecChild(const SpawnOptions& options, char* const* argv, char* const* envp,
                            int error_fd) {
  sigset_t blocked;
  sigemptyset(&blocked);
  for (const int signo : options.blocked) sigaddset(&blocked, signo);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  // Lift every fd out of the target range first, so that no dup2 overwrites a later source.
  int top = 100 + error_fd;
  for (const auto& [ours, theirs] : options.fds) top = std::max({top, ours + 1, theirs + 1});
  int lifted[kMaxSpawnFds] = {};
  size_t count = 0;
  for (const auto& [ours, theirs] : options.fds) {
    lifted[count] = fcntl(ours, F_DUPFD, top);
    if (lifted[count++] < 0) TellAndExit(error_fd);
  }
  const int lifted_error = fcntl(error_fd, F_DUPFD_CLOEXEC, top);
  if (lifted_error < 0) TellAndExit(error_fd);
  count = 0;
  for (const auto& [ours, theirs] : options.fds) {
    if (dup2(lifted[count++], theirs) < 0) TellAndExit(lifted_error);
  }
  CloseAllOnExec();
  for (const auto& [ours, theirs] : options.fds) fcntl(theirs, F_SETFD, 0);
  execve(argv[0], argv, envp);
  TellAndExit(lifted_error);
}

}  // namespace

Result<PidFd> SpawnProcess(const SpawnOptions& options) {
  PULGA_CHECK(!options.argv.empty() && options.fds.size() <= kMaxSpawnFds);
  std::vector<char*> argv;
  std::vector<char*> envp;
  for (const std::string& a : options.argv) argv.push_back(const_cast<char*>(a.c_str()));
  for (const std::string& e : options.env) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  int pipe_fds[2];
  if (PULGA_SYS(pipe2, pipe_fds, O_CLOEXEC) != 0) return LastError("pipe2");
  UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);
  const pid_t pid = sys::Faulted() ? -1 : fork();
  if (pid < 0) return LastError("fork");
  if (pid == 0) ExecChild(options, argv.data(), envp.data(), write_end.get());
  write_end.Reset();
  auto child = PidFd::OfChild(pid);
  int exec_errno = 0;
  const ssize_t n = read(read_end.get(), &exec_errno, sizeof exec_errno);
  if (!child.ok() || n == sizeof exec_errno) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    if (!child.ok()) return child.error();
    return ErrnoError("start " + options.argv[0], exec_errno);
  }
  return child;
}

void CloseAllBut(const std::vector<int>& keep) {
  std::vector<int> kept(keep);
  std::sort(kept.begin(), kept.end());
  unsigned from = 3;
  for (const int fd : kept) {
    if (fd < static_cast<int>(from)) continue;
    if (fd > static_cast<int>(from)) CloseFrom(from, static_cast<unsigned>(fd) - 1);
    from = static_cast<unsigned>(fd) + 1;
  }
  CloseFrom(from, ~0U);
}

}  // namespace pulga
