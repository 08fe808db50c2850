#include "sandbox/net_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "base/result.h"
#include "base/sys.h"
#include "net/net_job.h"
#include "sandbox/privileges.h"

namespace pulga {
namespace {

constexpr int kFirstFd = 3;
constexpr int kLiftedFd = 64;

// Before the daemon, after the functions it works for.
constexpr int kOomScore = 250;

Status JoinOwnCgroup(const CgroupJoin& join) {
  PULGA_RETURN_IF_ERROR(JoinV1Cgroups(join, "net-join-cgroup"));
  return SetOomScore(kOomScore);
}

// `answer_fd` is where a failure is told, at any moment.
Status PlaceFds(const NetChild& child, int& program_fd, int& answer_fd) {
  const int null = PULGA_SYS(open, "/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return LastError("net-fds: open /dev/null");
  std::vector<int> lifted;
  for (const int fd : child.fds) {
    lifted.push_back(PULGA_SYS(fcntl, fd >= 0 ? fd : null, F_DUPFD_CLOEXEC, kLiftedFd));
    if (lifted.back() < 0) return LastError("net-fds");
  }
  answer_fd = lifted[child.answer];
  program_fd = PULGA_SYS(fcntl, child.program_fd, F_DUPFD_CLOEXEC, kLiftedFd);
  if (program_fd < 0) return LastError("net-fds");
  std::vector<int> keep = {program_fd};
  for (size_t i = 0; i < lifted.size(); ++i) {
    const int target = kFirstFd + static_cast<int>(i);
    if (PULGA_SYS(dup2, lifted[i], target) != target) return LastError("net-fds");
    keep.push_back(target);
  }
  answer_fd = kFirstFd + static_cast<int>(child.answer);
  CloseAllBut(keep);
  return OkStatus();
}

Status TakeId(uid_t id) {
  for (const StepResult& done : {DropBounding(), LockSecurebits(), SetIds({id, id, {}}),
                                 NoNewPrivs(), ClearAllCapabilities()}) {
    if (!done.ok()) return ErrnoError(done.step, done.sys_errno);
  }
  // A change of ids has cleared it.
  if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) return LastError("pdeathsig");
  return OkStatus();
}

Status Become(const NetChild& child, int& answer_fd) {
  if (child.cgroup != nullptr) PULGA_RETURN_IF_ERROR(JoinOwnCgroup(*child.cgroup));
  int program_fd = -1;
  PULGA_RETURN_IF_ERROR(PlaceFds(child, program_fd, answer_fd));
  if (PULGA_SYS(chdir, "/") != 0) return LastError("chdir");
  if (child.id) PULGA_RETURN_IF_ERROR(TakeId(*child.id));
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::vector<char*> argv = {const_cast<char*>(child.name.c_str())};
  for (const std::string& argument : child.arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  char* envp[] = {nullptr};
  (void)PULGA_SYS(syscall, SYS_execveat, program_fd, "", argv.data(), envp, AT_EMPTY_PATH);
  return LastError("exec");
}

}  // namespace

const char* CgroupNameOf(NetHelper helper) {
  return helper == NetHelper::kRouter ? "router" : "netadmin";
}

SandboxLimits LimitsOf(NetHelper) {
  SandboxLimits limits;
  // The router: what its connections hold (net/tcp_relay.cpp), most of it in the kernel. An admin:
  // what the kernel keeps of rules and interfaces is counted here as long as they exist.
  limits.memory_bytes = 256ULL << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  limits.memory_bytes = 1ULL << 30;
#endif
  limits.pids = 8;
  // Each is one thread: no call is slower for it, and more of them take no more.
  limits.cpu_millis = 1000;
  return limits;
}

int ExecNetChild(const NetChild& child) {
  int answer_fd = child.fds[child.answer];
  const Error failed = Prefix(child.name, Become(child, answer_fd).error());
  LogError(failed.message);
  const std::string text = EncodeNetAnswer(failed);
  (void)!send(answer_fd, text.data(), text.size(), MSG_NOSIGNAL);
  return 126;
}

}  // namespace pulga
