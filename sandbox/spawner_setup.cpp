#include "sandbox/spawner_setup.h"

#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/seccomp.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/build_report.h"
#include "sandbox/id_ranges.h"
#include "sandbox/program_lookup.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/skeleton.h"
#include "sandbox/user_lookup.h"

namespace pulga {
namespace {

Status FromStep(const StepResult& result) {
  if (result.ok()) return OkStatus();
  return ErrnoError(result.step, result.sys_errno);
}

// An allow list: an fd of a host directory, opened before, would lead past pivot_root.
void KeepOnlyNeeded(const SpawnerInput& input) {
  std::vector<int> keep = {input.socket_fd, input.records_fd, input.report_fd, input.lifeline_fd,
                           input.start_fd};
  for (const SlotCgroup& slot : input.slots) {
    for (const UniqueFd& fd : slot.join.v1_tasks) keep.push_back(fd.get());
    keep.push_back(slot.join.v2_dir.get());
    for (const CounterFd* counter : {&slot.counters.oom_kills, &slot.counters.memory_peak,
                                     &slot.counters.memory_current, &slot.counters.cpu_usage}) {
      keep.push_back(counter->fd.get());
    }
  }
  CloseAllBut(keep);
}

// The host's log is none of its business: what it has to say goes into its report.
Status LeaveStdio() {
  const UniqueFd null(PULGA_SYS(open, "/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return LastError("spawner-stdio");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kLast = 1;  // the sanitizer reports on 2
#else
  constexpr int kLast = 2;
#endif
  for (int fd = 0; fd <= kLast; ++fd) {
    if (PULGA_SYS(dup2, null.get(), fd) != fd) return LastError("spawner-stdio");
  }
  return OkStatus();
}

Status WaitForIdMaps(const SpawnerInput& input) {
  char go;
  ssize_t n;
  do {
    n = read(input.start_fd, &go, 1);
  } while (n < 0 && errno == EINTR);
  close(input.start_fd);
  if (n != 1) return Error{Code::kUnavailable, 0, "start-spawner: the set-up ended"};
  return OkStatus();
}

// setresuid clears PR_SET_PDEATHSIG, so it comes after; a launcher that died before is noticed by
// the lifeline, since getppid() says 0 across pid namespaces.
Status TakeIdentity(const std::string& hostname) {
  PULGA_RETURN_IF_ERROR(FromStep(SetIds({kSpawnerInnerId, kSpawnerInnerId, {}})));
  if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) return LastError("pdeathsig");
  if (PULGA_SYS(prctl, PR_SET_DUMPABLE, 0) != 0) return LastError("not-dumpable");
  const std::string name = hostname.empty() ? "localhost" : hostname;
  if (PULGA_SYS(sethostname, name.data(), name.size()) != 0) return LastError("hostname");
  prctl(PR_SET_NAME, "pulga-spawner");
  umask(022);
  // One session keyring per version: a keyring per instance would meet the kernel's 200 keys a
  // user.
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS) {
    return LastError("session-keyring");
  }
  return OkStatus();
}

Status MountOwnProc() {
  if (PULGA_SYS(mount, nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return LastError("spawner-private-mounts");
  }
  const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (PULGA_SYS(mount, "proc", "/proc", "proc", flags, nullptr) != 0) {
    return LastError("spawner-proc");
  }
  return OkStatus();
}

// PID 1 of an exec instance is a fork of the launcher, and everybody may read /proc/1/cmdline: it
// must not show the launcher's host path. The bytes are ours, where proc(5) says they are.
Status HideCommandLine() {
  constexpr size_t kArgStart = 48 - 2;  // fields of /proc/PID/stat, counted behind "comm) "
  PULGA_ASSIGN_OR_RETURN(const std::string stat, ReadFile("/proc/self/stat"));
  const std::string fields = stat.substr(std::min(stat.size(), stat.rfind(')') + 1));
  const auto parts = Split(fields, ' ');
  if (parts.size() <= kArgStart) return Error{Code::kUnsupported, 0, "hide-command-line"};
  const auto begin = ParseUint(parts[kArgStart]).value_or(0);
  const auto end = ParseUint(parts[kArgStart + 1]).value_or(0);
  if (begin != 0 && end > begin) memset(reinterpret_cast<void*>(begin), 0, end - begin);
  return OkStatus();
}

// Limits every process of the version inherits; lowers only. No RLIMIT_FSIZE: all that can be
// written is a tmpfs with a size of its own, and a full one must say ENOSPC, not kill by SIGXFSZ.
Status LimitResources() {
  struct Limit {
    int resource;
    rlim_t most;
  };
  for (const auto& [resource, most] :
       {Limit{RLIMIT_CORE, 0}, Limit{RLIMIT_MSGQUEUE, 0}, Limit{RLIMIT_NICE, 0},
        Limit{RLIMIT_RTPRIO, 0}, Limit{RLIMIT_MEMLOCK, 8 << 20}, Limit{RLIMIT_SIGPENDING, 1024}}) {
    rlimit now = {};
    if (getrlimit(static_cast<__rlimit_resource>(resource), &now) != 0) return LastError("rlimits");
    now.rlim_max = std::min(now.rlim_max, most);
    now.rlim_cur = std::min(now.rlim_cur, now.rlim_max);
    if (PULGA_SYS(setrlimit, static_cast<__rlimit_resource>(resource), &now) != 0) {
      return LastError("rlimits");
    }
  }
  return OkStatus();
}

bool HasKey(const std::vector<std::string>& env, const std::string& key) {
  return std::any_of(env.begin(), env.end(), [&](const std::string& entry) {
    return entry.compare(0, key.size() + 1, key + "=") == 0;
  });
}

// "/tmp/a/b" -> "/tmp/a", "/tmp/a/b": the instance makes them in its own /tmp.
std::vector<std::string> PartsBelowTmp(const std::string& dir) {
  std::vector<std::string> out;
  if (!IsBelow(dir, "/tmp")) return out;
  for (size_t at = dir.find('/', 5); at != std::string::npos; at = dir.find('/', at + 1)) {
    out.push_back(dir.substr(0, at));
  }
  if (dir.size() > 5) out.push_back(dir);
  return out;
}

Status ResolveProgram(SpawnerState& state) {
  const UniqueFd root(PULGA_SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return LastError("open-root");
  auto user = ResolveUser(state.spec.user, ReadUserDatabase(root.get()));
  if (!user.ok()) return Prefix("user", user.error());
  state.groups = user->groups;
  state.plan.ids = {user->uid, user->gid, state.groups};
  if (!HasKey(state.spec.env, "PATH"))
    state.spec.env.push_back("PATH=" + std::string(kDefaultPath));
  if (!HasKey(state.spec.env, "HOME")) state.spec.env.push_back("HOME=" + user->home);
  ProgramQuery query;
  query.name = state.spec.argv[0];
  query.env = state.spec.env;
  query.working_dir = state.spec.working_dir;
  query.root_fd = root.get();
  auto program = FindProgram(query);
  if (!program.ok()) return Prefix("command", program.error());
  state.plan.program = *program;
  state.plan.working_dir = state.spec.working_dir;
  state.plan.working_dir_parts = PartsBelowTmp(state.spec.working_dir);
  return OkStatus();
}

Status MapRecords(SpawnerState& state, int records_fd) {
  const size_t size = sizeof(SlotRecord) * state.spec.slots;
  void* map = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, records_fd, 0);
  if (map == MAP_FAILED) return LastError("map-records");
  state.records = static_cast<SlotRecord*>(map);
  close(records_fd);
  return OkStatus();
}

Status PrepareNetwork(SpawnerState& state) {
  PULGA_RETURN_IF_ERROR(FromStep(PrepareNetns()));
  const uint16_t spare = state.spec.mode == SandboxMode::kHttp ? state.spec.spare_netns : 0;
  PULGA_RETURN_IF_ERROR(FromStep(state.netns.Init(spare)));
  return FromStep(state.netns.Refill(1));
}

// Proc needs the instance's own pid namespace; the private tmpfs can be mounted ahead.
Status PlanMounts(SpawnerState& state) {
  state.plan.mounts = InstanceMounts(state.spec.limits, ReadProcEntries("/proc"));
  std::vector<MountEntry> ahead;
  for (const MountEntry& entry : state.plan.mounts) {
    (entry.fstype == "tmpfs" ? ahead : state.plan.late_mounts).push_back(entry);
  }
  return FromStep(state.spares.Init(std::move(ahead)));
}

// What instances inherit so that none of them pays for it again.
Status GiveUpForGood() {
  PULGA_RETURN_IF_ERROR(FromStep(DropBounding()));
  PULGA_RETURN_IF_ERROR(FromStep(LockSecurebits()));
  PULGA_RETURN_IF_ERROR(FromStep(NoNewPrivs()));
  const int failed = LoadSeccomp(SpawnerFilter());
  if (failed != 0) return ErrnoError("spawner-seccomp", failed);
  return OkStatus();
}

Status WatchChildren(SpawnerState& state) {
  sigset_t set;
  sigfillset(&set);
  if (sigprocmask(SIG_SETMASK, &set, nullptr) != 0) return LastError("spawner-signals");
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  state.signal_fd = PULGA_SYS(signalfd, -1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (state.signal_fd < 0) return LastError("spawner-signals");
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<SpawnerState>> SetUpSpawner(SpawnerInput& input) {
  KeepOnlyNeeded(input);
  PULGA_RETURN_IF_ERROR(WaitForIdMaps(input));
  PULGA_RETURN_IF_ERROR(LeaveStdio());
  auto state = std::make_unique<SpawnerState>();
  state->spec = std::move(input.spec);
  state->socket_fd = input.socket_fd;
  state->lifeline_fd = input.lifeline_fd;
  PULGA_RETURN_IF_ERROR(TakeIdentity(state->spec.hostname));
  PULGA_RETURN_IF_ERROR(MountOwnProc());
  PULGA_RETURN_IF_ERROR(HideCommandLine());
  PULGA_RETURN_IF_ERROR(ResolveProgram(*state));
  PULGA_RETURN_IF_ERROR(MapRecords(*state, input.records_fd));
  PULGA_RETURN_IF_ERROR(PrepareNetwork(*state));
  PULGA_RETURN_IF_ERROR(PlanMounts(*state));
  state->same_cpu.Read();
  state->plan.nofile = state->spec.limits.nofile;
  state->plan.init = state->spec.init;
  state->plan.filter = InstanceFilter();
  // In http mode the image's own process is PID 1, as it expects.
  if (state->spec.mode == SandboxMode::kHttp) state->plan.init = InitKind::kNone;
  state->arguments = std::make_unique<ExecArguments>(state->spec.argv, state->spec.env);
  PULGA_RETURN_IF_ERROR(LimitResources());
  PULGA_RETURN_IF_ERROR(WatchChildren(*state));
  PULGA_RETURN_IF_ERROR(GiveUpForGood());
  return state;
}

}  // namespace pulga
