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
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/process.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/instance_trial.h"
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
  std::vector<int> keep = {input.socket_fd,   input.records_fd, input.report_fd,
                           input.lifeline_fd, input.start_fd,   input.attach_fd};
  for (const SlotCgroup& slot : input.slots) {
    for (const UniqueFd& fd : slot.join.v1_tasks) keep.push_back(fd.get());
    keep.push_back(slot.join.v2_dir.get());
    keep.push_back(slot.freezer.state.get());
    keep.push_back(slot.freezer.processes.get());
    keep.push_back(slot.memory.stat.get());
    keep.push_back(slot.memory.swap.get());
    keep.push_back(slot.cpu.usage.get());
    keep.push_back(slot.cpu.throttled.get());
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
    n = PULGA_SYS(read, input.start_fd, &go, 1);
  } while (n < 0 && errno == EINTR);
  close(input.start_fd);
  if (n != 1) return Error{Code::kUnavailable, 0, "start-spawner: the set-up ended"};
  return OkStatus();
}

// setresuid clears PR_SET_PDEATHSIG, so it comes after; a launcher that died before is noticed by
// the lifeline, since getppid() says 0 across pid namespaces.
Status TakeIdentity(const HostIds& host, const std::string& hostname, long* keyring) {
  const uid_t id = host.SpawnerInnerId();
  PULGA_RETURN_IF_ERROR(FromStep(SetIds({id, id, {}, host.IsSingle()})));
  if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) return LastError("pdeathsig");
  if (PULGA_SYS(prctl, PR_SET_DUMPABLE, 0) != 0) return LastError("not-dumpable");
  const std::string name = hostname.empty() ? "localhost" : hostname;
  if (PULGA_SYS(sethostname, name.data(), name.size()) != 0) return LastError("hostname");
  prctl(PR_SET_NAME, "pulga-spawner");
  umask(022);
  // One session keyring per version: a keyring per instance would meet the kernel's 200 keys a
  // user.
  *keyring = PULGA_SYS(syscall, SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr);
  if (*keyring < 0 && errno != ENOSYS) return LastError("session-keyring");
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

// Of a user's daemon the kernel counts all functions' inotify together, and for the user: one
// version gets half of that. Best effort, since it is the user's own share that is at stake.
void HalveInotify() {
  for (const char* name : {"instances", "watches"}) {
    const auto most = ReadFile(std::string("/proc/sys/fs/inotify/max_user_") + name);
    const auto number =
        most.ok() ? ParseUint(Trim(most->substr(0, most->find('\n')))) : std::nullopt;
    if (!number) continue;
    const auto fd = OpenFile(std::string("/proc/sys/user/max_inotify_") + name, O_WRONLY);
    const std::string half = std::to_string(*number / 2);
    if (fd.ok()) (void)!write(fd->get(), half.data(), half.size());
  }
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
constexpr ResourceLimit kMost[] = {{"core", RLIMIT_CORE, 0},
                                   {"msgqueue", RLIMIT_MSGQUEUE, 0},
                                   {"nice", RLIMIT_NICE, 0},
                                   {"rtprio", RLIMIT_RTPRIO, 0},
                                   {"memlock", RLIMIT_MEMLOCK, 8 << 20},
                                   {"sigpending", RLIMIT_SIGPENDING, 1024}};

Status LimitResources() {
  for (const auto& [name, resource, most] : kMost) {
    rlimit now = {};
    if (PULGA_SYS(getrlimit, static_cast<__rlimit_resource>(resource), &now) != 0) {
      return LastError("rlimits");
    }
    now.rlim_max = std::min<rlim_t>(now.rlim_max, most);
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

// "/tmp/a/b" -> "/tmp/a", "/tmp/a/b": the instance makes them in its own /tmp, or /run.
std::vector<std::string> PartsBelowTmp(const std::string& dir) {
  std::vector<std::string> out;
  if (!IsBelow(dir, "/tmp") && !IsBelow(dir, "/run")) return out;
  for (size_t at = dir.find('/', 5); at != std::string::npos; at = dir.find('/', at + 1)) {
    out.push_back(dir.substr(0, at));
  }
  if (dir.size() > 5) out.push_back(dir);
  return out;
}

// With one id for everything whoever the image names becomes that one; elsewhere an id nobody has
// mapped fails here, in words.
Status TakeUser(const HostIds& host, const ResolvedUser& user, SpawnerState& state) {
  if (host.IsSingle()) {
    state.plan.ids = {0, 0, {}, true};
    return OkStatus();
  }
  state.groups = user.groups;
  std::erase_if(state.groups, [&](gid_t group) { return !host.Maps(group); });
  for (const uint32_t id : {user.uid, user.gid}) {
    if (host.Maps(id)) continue;
    return Error{
        Code::kInvalidArgument, 0,
        "user: the ids of this daemon's user (/etc/subuid, /etc/subgid) are too few for id " +
            std::to_string(id)};
  }
  state.plan.ids = {user.uid, user.gid, state.groups};
  return OkStatus();
}

Status ResolveProgram(const HostIds& host, SpawnerState& state) {
  const UniqueFd root(PULGA_SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return LastError("open-root");
  auto user = ResolveUser(state.spec.user, ReadUserDatabase(root.get()));
  if (!user.ok()) return Prefix("user", user.error());
  PULGA_RETURN_IF_ERROR(TakeUser(host, *user, state));
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
  state.plan.program = program->path;
  state.abi = program->abi;
  state.plan.working_dir = state.spec.working_dir;
  state.plan.working_dir_parts = PartsBelowTmp(state.spec.working_dir);
  return OkStatus();
}

Status MapRecords(SpawnerState& state, int records_fd) {
  const size_t size = RecordsBytes(state.spec.slots);
  void* map = MAP_FAILED;
  if (!sys::Faulted()) {
    map = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, records_fd, 0);
  }
  if (map == MAP_FAILED) return LastError("map-records");
  state.records = static_cast<SlotRecord*>(map);
  state.refusal_record = reinterpret_cast<RefusalRecord*>(state.records + state.spec.slots);
  close(records_fd);
  return OkStatus();
}

Status PrepareNetwork(SpawnerState& state, int attach_fd) {
  if (state.spec.access.network.mode == NetworkMode::kHost) return OkStatus();
  PULGA_RETURN_IF_ERROR(FromStep(PrepareNetns()));
  const uint16_t spare = state.spec.mode == SandboxMode::kHttp ? state.spec.spare_netns : 0;
  PULGA_RETURN_IF_ERROR(FromStep(state.netns.Init(spare, attach_fd)));
  return FromStep(state.netns.Refill(1));
}

// What a kernel refuses to show cannot be shown; nothing else depends on it.
Status TryOne(SpawnerState& state) {
  PULGA_ASSIGN_OR_RETURN(InstanceTrial trial, TryInstance(state.views));
  state.views = std::move(trial.views);
  state.refused_views = trial.refused_views;
  state.layers = std::move(trial.layers);
  return OkStatus();
}

// Proc needs the instance's own pid namespace and its cgroup the slot; what it may write to can be
// mounted ahead.
Status PlanMounts(SpawnerState& state) {
  PULGA_RETURN_IF_ERROR(TryOne(state));
  state.plan.mounts =
      InstanceMounts({state.spec.limits, ReadProcEntries("/proc"), state.views, state.plan.ids.uid,
                      state.plan.ids.gid, state.secrets.mounted()});
  std::vector<MountEntry> ahead;
  for (const MountEntry& entry : state.plan.mounts) {
    const bool is_ahead = entry.fstype == "tmpfs" || entry.kind == MountKind::kSymlink;
    (is_ahead ? ahead : state.plan.late_mounts).push_back(entry);
  }
  std::vector<std::string> writable;
  for (const MountEntry& entry : ahead) {
    if (entry.kind == MountKind::kMount) writable.push_back("/" + entry.target);
  }
  for (const VolumeMount& volume : state.spec.access.volumes) {
    if (!volume.read_only) writable.push_back(volume.path);
  }
  state.writable = Join(writable, ", ");
  const int version = LandlockVersion();
  state.fence = LandlockLayer(version, errno);
  state.plan.fence.Init(version, std::move(writable));
  return FromStep(state.spares.Init(std::move(ahead), state.plan.fence));
}

// What instances inherit so that none of them pays for it again.
Status GiveUpForGood(SpawnerState& state) {
  const CapabilitySet keep = state.plan.capabilities;
  PULGA_RETURN_IF_ERROR(FromStep(DropBounding(keep)));
  PULGA_RETURN_IF_ERROR(FromStep(LockSecurebits(keep)));
  PULGA_RETURN_IF_ERROR(FromStep(NoNewPrivs()));
  const int failed = state.refusals.Load(state.abi);
  if (failed != 0) return ErrnoError("spawner-seccomp", failed);
  return OkStatus();
}

Status WatchChildren(SpawnerState& state) {
  sigset_t set;
  sigfillset(&set);
  if (PULGA_SYS(sigprocmask, SIG_SETMASK, &set, nullptr) != 0) return LastError("spawner-signals");
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  state.signal_fd = PULGA_SYS(signalfd, -1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (state.signal_fd < 0) return LastError("spawner-signals");
  return OkStatus();
}

// It is put on at the next execve, and an instance's is the first that this process or a fork of it
// makes.
Status AskForProfile(AppArmorUse use, SpawnerState& state) {
  const int failed = use == AppArmorUse::kOff ? 0 : AskForAppArmor();
  state.apparmor = WithUse(AppArmorLayer(failed), use);
  return CheckAppArmor(state.apparmor, use);
}

Feature ViewLayer(const SpawnerState& state) {
  Feature view{"cgroup_view", FeatureState::kPresent, "", ""};
  if (state.views.empty() && state.refused_views == 0) {
    view = {"cgroup_view", FeatureState::kAbsent, "it has no cgroup of its own", ""};
  } else if (state.refused_views > 0) {
    view.state = state.views.empty() ? FeatureState::kAbsent : FeatureState::kDegraded;
    view.detail = "this kernel mounts no cgroup hierarchy for a user namespace";
  }
  return view;
}

// Last: what holds now holds for every instance.
void TellLayers(SpawnerState& state) {
  constexpr FeatureState kPresent = FeatureState::kPresent;
  state.layers.push_back({"read_only_root", kPresent, "written are " + state.writable, ""});
  for (Feature& layer : OwnLayers(state.plan.capabilities)) {
    if (layer.name == "seccomp" && state.abi == ProgramAbi::kArm32) {
      layer.detail = "for calls of arm64 and of 32-bit ARM";
    }
    state.layers.push_back(std::move(layer));
  }
  state.layers.push_back(RlimitLayer(kMost, state.plan.nofile));
  if (state.keyring > 0) {
    state.layers.push_back({"keyring", kPresent, "a session keyring of the version's own", ""});
  } else {
    state.layers.push_back(
        {"keyring", FeatureState::kAbsent, "this kernel has no keyrings to share either", ""});
  }
  state.layers.push_back(RefusalLayer(state.refusals.error()));
  state.layers.push_back(std::move(state.fence));
  state.layers.push_back(std::move(state.apparmor));
  state.layers.push_back(ViewLayer(state));
}

}  // namespace

std::span<const ResourceLimit> VersionRlimits() { return kMost; }

Result<std::unique_ptr<SpawnerState>> SetUpSpawner(SpawnerInput& input) {
  KeepOnlyNeeded(input);
  PULGA_RETURN_IF_ERROR(WaitForIdMaps(input));
  PULGA_RETURN_IF_ERROR(LeaveStdio());
  auto state = std::make_unique<SpawnerState>();
  state->spec = std::move(input.spec);
  state->views = std::move(input.views);
  state->socket_fd = input.socket_fd;
  state->lifeline_fd = input.lifeline_fd;
  PULGA_RETURN_IF_ERROR(TakeIdentity(input.ids, state->spec.hostname, &state->keyring));
  PULGA_RETURN_IF_ERROR(MountOwnProc());
  if (!state->spec.secrets.empty()) {
    PULGA_RETURN_IF_ERROR(state->secrets.Mount(state->spec.secrets));
  }
  if (!input.ids.on_host) HalveInotify();
  PULGA_RETURN_IF_ERROR(HideCommandLine());
  PULGA_RETURN_IF_ERROR(ResolveProgram(input.ids, *state));
  PULGA_RETURN_IF_ERROR(MapRecords(*state, input.records_fd));
  PULGA_RETURN_IF_ERROR(PrepareNetwork(*state, input.attach_fd));
  PULGA_RETURN_IF_ERROR(PlanMounts(*state));
  state->same_cpu.Read();
  state->plan.nofile = state->spec.limits.nofile;
  state->plan.init = state->spec.init;
  state->plan.capabilities = state->spec.access.capabilities;
  const bool arm32 = state->abi == ProgramAbi::kArm32;
  state->plan.filter = arm32 ? InstanceFilterWithArm32() : InstanceFilter();
  // A server's own process is PID 1, as it expects.
  if (IsServer(state->spec.mode)) state->plan.init = InitKind::kNone;
  state->arguments = std::make_unique<ExecArguments>(state->spec.argv, state->spec.env);
  PULGA_RETURN_IF_ERROR(LimitResources());
  PULGA_RETURN_IF_ERROR(WatchChildren(*state));
  PULGA_RETURN_IF_ERROR(AskForProfile(input.apparmor, *state));
  PULGA_RETURN_IF_ERROR(GiveUpForGood(*state));
  TellLayers(*state);
  return state;
}

}  // namespace pulga
