#include "sandbox/child_setup.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/seccomp.h"
#include "base/sys.h"
#include "sandbox/cgroup.h"
#include "sandbox/clone_child.h"
#include "sandbox/mount_apply.h"
#include "sandbox/received_fds.h"

namespace pulga {
namespace {

constexpr int kSetupFailedExit = 125;
constexpr rlim_t kHardNofile = 4096;

// The parked instance's only memory beyond its stack; untouched pages cost nothing.
alignas(16) char g_wake_buffer[kMaxSpawnMessage];

[[noreturn]] void Fail(const ChildRun& run, const char* step, int sys_errno) {
  strncpy(run.record->step, step, kStepBytes - 1);
  run.record->sys_errno = sys_errno;
  _exit(kSetupFailedExit);
}

void Require(const ChildRun& run, const StepResult& result) {
  if (!result.ok()) Fail(run, result.step, result.sys_errno);
}

// The caller's fds are all CLOEXEC at birth; this is the second lock on the same door.
int CloseOnExec(unsigned from) {
  if (PULGA_SYS(sys::CloseRange, from, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return 0;
  if (sys::CloseRange(from, ~0U, 0) == 0) return 0;  // Linux 5.9, 5.10
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
  for (int fd = static_cast<int>(from); fd < static_cast<int>(limit.rlim_max); ++fd) close(fd);
  return 0;
}

// A volume mounted over the image may hold a link to one of the descriptors still open here, such
// as a directory of the host's cgroups (as in CVE-2024-21626): what is not below our root has no
// path.
void EnterWorkingDir(const ChildRun& run) {
  for (const std::string& part : run.plan->working_dir_parts) {
    if (PULGA_SYS(mkdir, part.c_str(), 0755) != 0 && errno != EEXIST)
      Fail(run, "make-workdir", errno);
    if (PULGA_SYS(lchown, part.c_str(), run.plan->ids.uid, run.plan->ids.gid) != 0) {
      Fail(run, "make-workdir", errno);
    }
  }
  if (PULGA_SYS(chdir, run.plan->working_dir.c_str()) != 0) Fail(run, "workdir", errno);
  char path[PATH_MAX];  // by the kernel's own words: glibc would look for another answer
  if (PULGA_SYS(syscall, SYS_getcwd, path, sizeof path) < 0) Fail(run, "workdir", errno);
  if (path[0] != '/') Fail(run, "workdir", EXDEV);
}

// Lowers only: raising would need CAP_SYS_RESOURCE over the host.
void LimitFiles(const ChildRun& run) {
  rlimit limit = {};
  if (PULGA_SYS(getrlimit, RLIMIT_NOFILE, &limit) != 0) Fail(run, "rlimit-nofile", errno);
  const rlim_t wanted = run.plan->nofile;
  limit.rlim_max = std::min(limit.rlim_max, std::max(wanted, kHardNofile));
  limit.rlim_cur = std::min(limit.rlim_max, wanted);
  if (PULGA_SYS(setrlimit, RLIMIT_NOFILE, &limit) != 0) Fail(run, "rlimit-nofile", errno);
}

// No mount can be made behind it, and it lasts: after the mounts, before the filter.
void Fence(const ChildRun& run) {
  if (!run.plan->fence.active()) return;
  UniqueFd own;
  if (run.mount_namespace < 0) own = run.plan->fence.MakeRuleset();
  const int ruleset = run.mount_namespace < 0 ? own.get() : run.ruleset;
  if (ruleset < 0) Fail(run, "landlock", errno);
  Require(run, RestrictSelf(ruleset));
}

void Reached(const ChildRun& run, SetupStep step) {
  run.record->step_ns[static_cast<size_t>(step)] =
      static_cast<uint32_t>(MonotonicNs() - run.record->begun_ns);
}

void Confine(const ChildRun& run) {
  Reached(run, SetupStep::kCloned);
  const int joined = JoinCgroup(run.v1_tasks);
  if (joined != 0) Fail(run, "join-cgroup", joined);
  if (PULGA_SYS(sys::MarkedUnshare, CLONE_NEWCGROUP) != 0) Fail(run, "unshare-cgroup", errno);
  Reached(run, SetupStep::kCgroups);
  if (run.netns >= 0 && PULGA_SYS(sys::MarkedSetNs, run.netns, CLONE_NEWNET) != 0) {
    Fail(run, "join-netns", errno);
  }
  Reached(run, SetupStep::kNetwork);
  const bool spare = run.mount_namespace >= 0;
  if (spare && PULGA_SYS(sys::MarkedSetNs, run.mount_namespace, CLONE_NEWNS) != 0) {
    Fail(run, "join-mounts", errno);
  }
  // Joining one goes to its root.
  if (!spare && PULGA_SYS(chdir, "/") != 0) Fail(run, "chdir-root", errno);
  Reached(run, SetupStep::kMountNamespace);
  Require(run, ApplyMounts(spare ? run.plan->late_mounts : run.plan->mounts));
  Reached(run, SetupStep::kMounts);
  EnterWorkingDir(run);
  Require(run, SetIds(run.plan->ids));
  Require(run, KeepCapabilities(run.plan->capabilities));
  Fence(run);
  LimitFiles(run);  // last: what the spawner holds for many slots may be more than that
  Reached(run, SetupStep::kPrivileges);
}

void LoadFilter(const ChildRun& run) {
  const int failed = sys::Faulted() ? errno : LoadSeccomp(run.plan->filter);
  if (failed != 0) Fail(run, "seccomp", failed);
  Reached(run, SetupStep::kFilter);
}

// PID 1 sleeps by now, but newer schedulers count a fresh sleeper as waiting for this processor
// until they choose again, and execve would then leave for an idle one.
void GiveBackProcessors(const ChildRun& run) {
  if (run.stayed == nullptr) return;
  sched_yield();
  const int failed = run.stayed->GiveBack();
  if (failed != 0) Fail(run, "processors", failed);
}

// The first descriptor that must not survive. Whatever had the channel's number was about to be
// closed anyway; a channel that has it already only has to be kept.
unsigned KeepChannel(const ChildRun& run) {
  if (run.channel < 0) return kChannelFd;
  const int failed = run.channel == kChannelFd ? PULGA_SYS(fcntl, kChannelFd, F_SETFD, 0)
                                               : PULGA_SYS(dup2, run.channel, kChannelFd);
  if (failed < 0) Fail(run, "channel", errno);
  return kChannelFd + 1;
}

[[noreturn]] void Execute(const ChildRun& run) {
  GiveBackProcessors(run);
  for (int i = 0; i < 3; ++i) {
    if (PULGA_SYS(dup2, run.stdio[i], i) != i) Fail(run, "stdio", errno);
  }
  if (CloseOnExec(KeepChannel(run)) != 0) Fail(run, "close-fds", errno);
  sigset_t none;
  sigemptyset(&none);
  if (PULGA_SYS(sigprocmask, SIG_SETMASK, &none, nullptr) != 0) Fail(run, "signal-mask", errno);
  run.record->exec_ns = MonotonicNs();
  if (!sys::Faulted()) {
    execve(run.plan->program.c_str(), run.arguments->argv(), run.arguments->envp());
  }
  Fail(run, "exec", errno);
}

// Takes the wake message apart; an errno, EBADMSG when it is not what it should be.
int ReceiveWake(ChildRun& run) {
  StdioMessage message(g_wake_buffer, sizeof g_wake_buffer);
  ssize_t n;
  do {
    n = message.Receive(run.wake, 0);
  } while (n < 0 && errno == EINTR);
  // The daemon let go of this instance, perhaps before it heard that it is parked.
  if (n == 0 || (n < 0 && errno == ECONNRESET)) _exit(0);
  if (n < 0) return errno;
  ReceivedFds fds(message.header());
  if (!fds.proper() || fds.count() != kStdioFds) return EBADMSG;
  SpawnRequest request;
  if (n < static_cast<ssize_t>(sizeof request)) return EBADMSG;
  memcpy(&request, g_wake_buffer, sizeof request);
  if (request.kind != SpawnKind::kWake ||
      !run.arguments->Assemble(request, g_wake_buffer + sizeof request,
                               static_cast<size_t>(n) - sizeof request)) {
    return EBADMSG;
  }
  memcpy(run.stdio, fds.fds(), sizeof run.stdio);
  fds.Release();
  return 0;
}

// The spawner's fds may fill every number below the instance's own limit, and then what comes with
// the wake message would find none.
void KeepOnlyWake(ChildRun& run) {
  constexpr int kWakeFd = 3;
  if (PULGA_SYS(dup2, run.wake, kWakeFd) != kWakeFd) Fail(run, "park", errno);
  run.wake = kWakeFd;
  if (PULGA_SYS(sys::CloseRange, kWakeFd + 1, ~0U, 0) == 0) return;
  for (int fd = kWakeFd + 1; fd < static_cast<int>(kHardNofile); ++fd) close(fd);
}

// The program's process, everything but execve done.
void ProgramMain(void* raw) {
  ChildRun& run = *static_cast<ChildRun*>(raw);
  run.record->ready_ns = MonotonicNs();
  if (run.wake >= 0) {
    KeepOnlyWake(run);
    if (PULGA_SYS(send, run.wake, "", 1, MSG_NOSIGNAL) != 1) Fail(run, "park", errno);
    const int failed = ReceiveWake(run);
    if (failed != 0) Fail(run, "wake", failed);
  }
  Execute(run);
}

// Reaps everything; the program's end is the instance's end.
void ReapUntil(pid_t program, SlotRecord* record) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid != program) continue;
    record->wait_status = status;
    record->has_wait_status = 1;
    _exit(0);
  }
}

// PID 1 of an exec instance: every signal is blocked and taken in turn, so none is lost and none
// meets pid 1's special treatment; what is not SIGCHLD goes to the program.
[[noreturn]] void RunInit(pid_t program, SlotRecord* record) {
  sigset_t all;
  sigfillset(&all);
  while (true) {
    ReapUntil(program, record);
    siginfo_t info = {};
    const int signo = sigwaitinfo(&all, &info);
    if (signo > 0 && signo != SIGCHLD) kill(program, signo);
  }
}

[[noreturn]] void InitMain(ChildRun& run) {
  sigset_t all;
  sigfillset(&all);
  if (PULGA_SYS(sigprocmask, SIG_SETMASK, &all, nullptr) != 0) Fail(run, "signal-mask", errno);
  LoadFilter(run);
  // Sharing spares a parked instance its page tables, and its execve their removal.
  const CloneMemory memory = run.wake >= 0 ? CloneMemory::kShare : CloneMemory::kVfork;
  const pid_t program = CloneProgram(memory, ProgramMain, &run);
  if (program < 0) Fail(run, "clone-program", errno);
  if (run.stayed != nullptr) (void)run.stayed->GiveBack();  // the program has its own by now
  if (PULGA_SYS(sys::CloseRange, 0, ~0U, 0) != 0) {
    for (int fd = 0; fd < static_cast<int>(kHardNofile); ++fd) close(fd);
  }
  RunInit(program, run.record);
}

}  // namespace

uint64_t MonotonicNs() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000ULL + static_cast<uint64_t>(now.tv_nsec);
}

void ChildMain(void* raw) {
  ChildRun& run = *static_cast<ChildRun*>(raw);
  Confine(run);
  if (run.plan->init == InitKind::kPulga) InitMain(run);
  LoadFilter(run);
  ProgramMain(raw);
}

}  // namespace pulga
