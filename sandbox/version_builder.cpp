#include "sandbox/version_builder.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/root_switch.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/build_report.h"
#include "sandbox/clone_child.h"
#include "sandbox/confined_lookup.h"
#include "sandbox/id_maps.h"
#include "sandbox/isolation.h"
#include "sandbox/mount_apply.h"
#include "sandbox/privileges.h"
#include "sandbox/secrets_mount.h"
#include "sandbox/skeleton.h"
#include "sandbox/spawner.h"
#include "sandbox/volumes/version_volumes.h"

namespace pulga {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSpawnerMemory = 1ULL << 30;
#else
constexpr uint64_t kSpawnerMemory = 32ULL << 20;
#endif

// Nearly all of it the kernel's, of each process between its clone and its own cgroup: in a burst
// that is all slots' at once.
constexpr uint64_t kBirthMemory = 192 << 10;
constexpr size_t kMaxResolvers = 16 << 10;
constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV;

Status Mount(const char* step, const char* source, const char* target, const char* type,
             unsigned long flags, const std::string& data) {
  if (PULGA_SYS(mount, source, target, type, flags, data.empty() ? nullptr : data.c_str()) == 0) {
    return OkStatus();
  }
  return LastError(step);
}

// What RLIMIT_CORE leaves: a core_pattern that names a program is not bound by it (core(5)).
// Whoever is forked and executed from here inherits it. Here, where /proc/self is still ours to
// write to. A kernel without CONFIG_ELF_CORE has no such file, and makes no cores.
Status KeepMemoryOutOfCores() {
  const UniqueFd fd(PULGA_SYS(open, "/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC));
  if (!fd.valid() && errno == ENOENT) return OkStatus();
  if (!fd.valid() || PULGA_SYS(write, fd.get(), "0", 1) != 1) return LastError("coredump-filter");
  return OkStatus();
}

Status ChangeDir(const char* step, const char* path) {
  if (PULGA_SYS(chdir, path) != 0) return LastError(step);
  return OkStatus();
}

Status MakeDir(const char* step, const char* path) {
  if (PULGA_SYS(mkdir, path, 0755) != 0) return LastError(step);
  return OkStatus();
}

// A mount namespace of our own; the current directory becomes the layers directory as seen in it
// (unshare moves the working directory along, an fd opened earlier stays in the old one).
Status EnterMountNamespace(int layers_fd) {
  if (PULGA_SYS(fchdir, layers_fd) != 0) return LastError("chdir-layers");
  if (PULGA_SYS(unshare, CLONE_NEWNS) != 0) return LastError("unshare-mounts");
  return Mount("private-mounts", nullptr, "/", nullptr, MS_REC | MS_PRIVATE, "");
}

Result<std::vector<UniqueFd>> OpenLayers(const std::vector<LayerId>& ids) {
  const UniqueFd here(PULGA_SYS(open, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!here.valid()) return LastError("open-layers");
  std::vector<UniqueFd> fds;
  for (const LayerId& id : ids) {
    UniqueFd fd(
        sys::Faulted() ? -1 : sys::OpenBeneath(here.get(), id.Hex().c_str(), O_PATH | O_DIRECTORY));
    if (!fd.valid()) return LastError("open-layers: layer " + id.Hex());
    fds.push_back(std::move(fd));
  }
  return fds;
}

Status OpenDataSets(std::vector<OpenVolume>& volumes) {
  for (OpenVolume& volume : volumes) {
    PULGA_ASSIGN_OR_RETURN(volume.layers, OpenLayers(volume.mount.layers));
  }
  return OkStatus();
}

Result<UniqueFd> OpenBuildDirectory(struct stat* st) {
  const UniqueFd here(PULGA_SYS(open, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!here.valid()) return LastError("mount-template");
  UniqueFd fd(PULGA_SYS(sys::OpenBeneath, here.get(), kBuildDirectory, O_PATH | O_DIRECTORY));
  if (!fd.valid() || PULGA_SYS(fstat, fd.get(), st) != 0) return LastError("mount-template");
  return fd;
}

// Mounts a tmpfs and enters it. By descriptors, and looked at: all that follows is written as root
// into the current directory, which must not be where a name led that was swapped in between.
Status EnterBuildDirectory() {
  struct stat below = {};
  struct stat mounted = {};
  PULGA_ASSIGN_OR_RETURN(const UniqueFd place, OpenBuildDirectory(&below));
  const std::string target = "/proc/self/fd/" + std::to_string(place.get());
  PULGA_RETURN_IF_ERROR(Mount("mount-template", "tmpfs", target.c_str(), "tmpfs", kSafe,
                              "size=2m,nr_inodes=8192,mode=0700"));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd inside, OpenBuildDirectory(&mounted));
  if (mounted.st_dev == below.st_dev) {
    return Error{Code::kPermission, EXDEV, "mount-template: the directory was replaced meanwhile"};
  }
  if (PULGA_SYS(fchdir, inside.get()) != 0) return LastError("mount-template");
  return OkStatus();
}

Status PlaceSecrets(const SkeletonOptions& options, const std::vector<VolumeMount>& volumes) {
  auto inside = AddMountPoint(options, kSecretsDirectory);
  if (!inside.ok()) return Prefix("secrets", inside.error());
  for (const VolumeMount& volume : volumes) {
    if (!IsBelow(*inside, volume.path) && !IsBelow(volume.path, *inside)) continue;
    return Error{Code::kInvalidArgument, 0,
                 "volume at " + volume.path + ": the secrets are in " + kSecretsDirectory};
  }
  return OkStatus();
}

// Current directory: the tmpfs that holds skeleton/ and root/. Ends with the overlay on root/.
// Returns the working directory as resolved.
Result<std::string> MountRoot(VersionBuild& build, const std::vector<UniqueFd>& layers) {
  for (const char* dir : {"empty", "image", "skeleton", "root"}) {
    PULGA_RETURN_IF_ERROR(MakeDir("mount-template", dir));
  }
  const unsigned long flags = kSafe | MS_RDONLY;
  PULGA_RETURN_IF_ERROR(Mount("mount-overlay", "overlay", "image", "overlay", flags,
                              OverlayOptions("empty", layers)));
  std::string working_dir;
  {
    SkeletonOptions options;
    const UniqueFd image(PULGA_SYS(open, "image", O_PATH | O_DIRECTORY | O_CLOEXEC));
    const UniqueFd skeleton(PULGA_SYS(open, "skeleton", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!image.valid() || !skeleton.valid()) return LastError("skeleton");
    options.image_root = image.get();
    options.skeleton = skeleton.get();
    options.working_dir = build.spec.working_dir;
    options.hostname = build.spec.hostname;
    if (build.spec.access.network.mode == NetworkMode::kHost) {
      const auto resolvers = ReadFile("/etc/resolv.conf", kMaxResolvers);
      if (resolvers.ok()) options.resolvers = *resolvers;  // without: names cannot be resolved
    }
    options.owner = build.ids.OwnerRoot();
    if (build.router) options.router = FormatIpv4(*build.router);
    PULGA_ASSIGN_OR_RETURN(working_dir, FillSkeleton(options));
    PULGA_RETURN_IF_ERROR(PlaceVolumes(options, build.spec.access.volumes));
    if (!build.spec.secrets.empty()) {
      PULGA_RETURN_IF_ERROR(PlaceSecrets(options, build.spec.access.volumes));
    }
  }
  if (PULGA_SYS(umount2, "image", MNT_DETACH) != 0) return LastError("skeleton: umount");
  PULGA_RETURN_IF_ERROR(Mount("mount-overlay", "overlay", "root", "overlay", flags,
                              OverlayOptions("skeleton", layers)));
  return working_dir;
}

void MountProcAndExit(void*) {
  const int done = PULGA_SYS(mount, "proc", "proc", "proc", kSafe | MS_NOEXEC, nullptr);
  _exit(done != 0 ? errno : 0);
}

// The one unmasked proc a spawner needs to be allowed to mount its own ("too revealing" rule): that
// of a pid namespace whose only process is gone, so that it shows nothing of the host.
Status MountEmptyProc() {
  CloneOptions options;
  options.flags = CLONE_NEWPID;
  const pid_t pid = CloneChild(options, MountProcAndExit, nullptr);
  if (pid < 0) return LastError("mount-template-proc: clone");
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) return LastError("mount-template-proc: wait");
  if (!WIFEXITED(status)) return Error{Code::kInternal, 0, "mount-template-proc: died"};
  if (WEXITSTATUS(status) != 0) return ErrnoError("mount-template-proc", WEXITSTATUS(status));
  return OkStatus();
}

// In host directories with an owner the function's user is that one; so it has to be known before
// there is a spawner that could find it out.
Status FindOwners(const VersionBuild& build, const CgroupJoin& join,
                  std::vector<OpenVolume>& volumes) {
  const auto& owners = build.host_owners;
  if (std::none_of(owners.begin(), owners.end(), [](const auto& o) { return o.has_value(); })) {
    return OkStatus();
  }
  const UniqueFd root(PULGA_SYS(open, "root", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return LastError("user: open the root");
  const uid_t base = build.ids.OwnerRoot();
  PULGA_ASSIGN_OR_RETURN(const UserIds user, LookUpUser(root.get(), build.spec.user, base, join));
  for (size_t i = 0; i < volumes.size() && i < owners.size(); ++i) {
    if (owners[i]) volumes[i].owner = {*owners[i], {base + user.uid, base + user.gid}};
  }
  return OkStatus();
}

// The root with everything every instance shares, entered; nothing of the host left to see.
Result<std::string> EnterTemplate(VersionBuild& build, const CgroupJoin& join) {
  const std::string version_cgroup =
      build.cgroups->SpawnerDirectory(CgroupController::kCpuset, build.spec.version_id);
  const std::vector<MountEntry> mounts =
      TemplateMounts({ReadSysEntries("/sys"), CgroupViews(build.cgroups->layout()), version_cgroup,
                      DeviceMounts(build.devices)});
  PULGA_ASSIGN_OR_RETURN(auto volumes, HoldVolumes(build.volumes, build.spec.access.volumes));
  PULGA_RETURN_IF_ERROR(EnterMountNamespace(build.layers_fd));
  PULGA_ASSIGN_OR_RETURN(const auto layers, OpenLayers(build.spec.layers));
  PULGA_RETURN_IF_ERROR(OpenDataSets(volumes));
  PULGA_RETURN_IF_ERROR(EnterBuildDirectory());
  PULGA_ASSIGN_OR_RETURN(std::string working_dir, MountRoot(build, layers));
  for (size_t i = 0; i < volumes.size(); ++i) volumes[i].mount = build.spec.access.volumes[i];
  PULGA_RETURN_IF_ERROR(FindOwners(build, join, volumes));
  PULGA_RETURN_IF_ERROR(MountVolumes(build.volumes, volumes));
  PULGA_RETURN_IF_ERROR(ChangeDir("enter-root", "root"));
  const StepResult applied = ApplyMounts(mounts);
  if (!applied.ok()) return ErrnoError(applied.step, applied.sys_errno);
  PULGA_RETURN_IF_ERROR(MountEmptyProc());
  const UniqueFd seen(PULGA_SYS(open, "/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!seen.valid()) return LastError("pivot-root: open mountinfo");
  PULGA_ASSIGN_OR_RETURN(build.root_switch, SwitchRoot(seen.get()));
  return working_dir;
}

// Functions are the first to go when the board itself runs out of memory.
constexpr int kOomScore = 500;

// With one id whoever the image names becomes it, which is nobody's loss but may surprise.
void WarnOfOneId(const VersionBuild& build, std::vector<std::string>& warnings) {
  const std::string& user = build.spec.user;
  const std::string name = user.substr(0, user.find(':'));
  if (!build.ids.IsSingle() || name.empty() || name == "0" || name == "root") return;
  warnings.push_back("user " + Printable(user, 64) +
                     " runs as id 0: this daemon's user has no subordinate ids");
}

// Whether the new child lives in another namespace than we do.
Result<bool> HasItsOwn(int proc_fd, pid_t pid, const std::string& kind) {
  struct stat theirs = {};
  struct stat ours = {};
  const std::string path = std::to_string(pid) + "/ns/" + kind;
  if (PULGA_SYS(fstatat, proc_fd, path.c_str(), &theirs, 0) != 0 ||
      PULGA_SYS(fstatat, proc_fd, ("self/ns/" + kind).c_str(), &ours, 0) != 0) {
    return LastError("look at the spawner's namespaces: " + kind);
  }
  return theirs.st_ino != ours.st_ino;
}

const char* WhatNetwork(NetworkMode mode) {
  if (mode == NetworkMode::kHost) return "the host's";
  return mode == NetworkMode::kEgress ? "loopback, and out by the router's rules"
                                      : "loopback alone";
}

// The layers of the isolation report that the spawner cannot know, or is not asked about.
Result<std::vector<Feature>> LayersMade(const SpawnerInput& input, RootSwitch root_switch,
                                        const VersionCgroups& cgroups, int proc_fd, pid_t pid) {
  constexpr FeatureState kPresent = FeatureState::kPresent;
  PULGA_ASSIGN_OR_RETURN(const bool user, HasItsOwn(proc_fd, pid, "user"));
  PULGA_ASSIGN_OR_RETURN(const bool net, HasItsOwn(proc_fd, pid, "net"));
  if (!user) return Error{Code::kPermission, 0, "the spawner is in no user namespace of its own"};
  const bool each = input.spec.mode == SandboxMode::kHttp;
  std::vector<Feature> layers = {
      {"user_namespace", kPresent, "the version's own", ""},
      IdRangeLayer(input.ids, input.spec.version_id),
      {"namespace.net", net ? kPresent : FeatureState::kAbsent,
       !net   ? "it is the host's"
       : each ? "one for each instance"
              : "one for all instances of the version",
       ""},
      {"old_root", kPresent, WhatOldRoot(root_switch), ""},
      {"network", kPresent, WhatNetwork(input.spec.access.network.mode), ""},
      {"host_directories", kPresent, "", ""}};
  layers.insert(layers.end(), cgroups.layers.begin(), cgroups.layers.end());
  return layers;
}

// The effective id alone: for what is made meanwhile. Capabilities stay as they are.
Status BecomeEffectively(uid_t id) {
  uint64_t capabilities = 0;
  if (PULGA_SYS(sys::GetPermittedCapabilities, &capabilities) != 0 ||
      PULGA_SYS(setresuid, static_cast<uid_t>(-1), id, static_cast<uid_t>(-1)) != 0 ||
      PULGA_SYS(sys::SetCapabilities, capabilities, 0) != 0) {
    return LastError("clone-spawner: as id " + std::to_string(id));
  }
  return OkStatus();
}

// What functions have of inotify instances, pending signals, locked memory and namespaces the
// kernel counts for whoever made their user namespace, too, and refuses that one more beyond a
// limit. So it is the version's own id that makes it, not root, who needs his share.
Result<pid_t> CloneSpawner(SpawnerInput& input, const CgroupJoin& join) {
  CloneOptions options;
  options.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
                  CLONE_NEWUTS | CLONE_PARENT;
  // Joining the host's from a user namespace is refused: so it is never left.
  if (input.spec.access.network.mode == NetworkMode::kHost) options.flags &= ~CLONE_NEWNET;
  options.exit_signal = 0;
  options.cgroup_fd = join.v2_dir.get();
  const uid_t self = geteuid();
  const pid_t launcher = getppid();
  const uid_t maker = input.ids.SpawnerHostId(input.spec.version_id);
  PULGA_RETURN_IF_ERROR(BecomeEffectively(maker));
  const pid_t pid = CloneChild(options, SpawnerMain, &input);
  const int failed = errno;
  Status back = BecomeEffectively(self);
  // Another effective id forgot that we die with the launcher.
  if (back.ok() && PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) {
    back = LastError("clone-spawner: prctl");
  }
  if (back.ok() && getppid() != launcher) back = Error{Code::kUnavailable, 0, "no launcher"};
  if (pid < 0) return ErrnoError("clone-spawner", failed);
  if (back.ok()) return pid;
  kill(pid, SIGKILL);  // the launcher reaps it: it is no child of ours
  return back.error();
}

// Tells the launcher of its new child before that child may run.
Status StartSpawner(VersionBuild& build, VersionCgroups& cgroups, std::string working_dir,
                    int proc_fd) {
  PULGA_RETURN_IF_ERROR(JoinV1Cgroups(cgroups.spawner, "join-cgroup"));
  int pipe_fds[2];
  if (PULGA_SYS(pipe2, pipe_fds, O_CLOEXEC) != 0) return LastError("spawner-pipe");
  const UniqueFd wait_end(pipe_fds[0]);
  const UniqueFd go_end(pipe_fds[1]);
  SpawnerInput input;
  input.spec = std::move(build.spec);
  input.spec.working_dir = std::move(working_dir);
  input.slots = std::move(cgroups.slots);
  input.ids = std::move(build.ids);
  input.views = CgroupViews(build.cgroups->layout());
  input.apparmor = build.apparmor;
  input.socket_fd = build.socket_fd;
  input.records_fd = build.records_fd;
  input.report_fd = build.report_fd;
  input.lifeline_fd = build.lifeline_fd;
  input.attach_fd = build.attach_fd;
  input.start_fd = wait_end.get();
  PULGA_ASSIGN_OR_RETURN(const pid_t pid, CloneSpawner(input, cgroups.spawner));
  const Status mapped =
      WriteIdMaps(proc_fd, pid, input.ids, input.ids.SpawnerHostId(input.spec.version_id));
  if (!mapped.ok()) {
    kill(pid, SIGKILL);
    return mapped;
  }
  const auto layers = LayersMade(input, build.root_switch, cgroups, proc_fd, pid);
  if (!layers.ok()) {
    kill(pid, SIGKILL);
    return layers.error();
  }
  const std::string report = WithLayers(Join(cgroups.warnings, "\n"), EncodeLayers(*layers));
  const Status told = SendReport(build.report_fd, MakeReport(ReportKind::kStarted, pid, report));
  if (!told.ok()) {
    kill(pid, SIGKILL);
    return told;
  }
  if (PULGA_SYS(write, go_end.get(), "", 1) != 1) return LastError("start-spawner");
  return OkStatus();
}

Status Build(VersionBuild& build) {
  VersionCgroupOptions options;
  options.version_id = build.spec.version_id;
  options.slots = build.spec.slots;
  options.limits = build.spec.limits;
  options.spawner_memory_bytes = kSpawnerMemory + build.spec.slots * kBirthMemory;
  if (!build.spec.secrets.empty()) {
    options.spawner_memory_bytes += SecretsMountBytes(build.spec.secrets.size());
  }
  options.spawner_pids = build.spec.slots + 16U;
  options.spawner_uid = build.ids.SpawnerHostId(build.spec.version_id);
  options.disk = build.disk;
  options.devices = DeviceRules(build.devices);
  options.freezable = IsServer(build.spec.mode);
  options.metered = build.spec.meter == VersionSpec::Meter::kCpu;
  auto cgroups = build.cgroups->CreateVersion(options);
  if (!cgroups.ok()) return Prefix("cgroups", cgroups.error());
  WarnOfOneId(build, cgroups->warnings);
  PULGA_ASSIGN_OR_RETURN(const UniqueFd proc_fd, OpenFile("/proc", O_PATH | O_DIRECTORY));
  PULGA_RETURN_IF_ERROR(SetOomScore(kOomScore));
  PULGA_RETURN_IF_ERROR(KeepMemoryOutOfCores());
  PULGA_ASSIGN_OR_RETURN(std::string working_dir, EnterTemplate(build, cgroups->spawner));
  return StartSpawner(build, *cgroups, std::move(working_dir), proc_fd.get());
}

}  // namespace

void BuildVersionAndExit(VersionBuild build) {
  SetLogTag("set-up");
  const int volumes_fd = build.volumes == nullptr ? -1 : build.volumes->fd();
  CloseAllBut({volumes_fd, build.layers_fd, build.socket_fd, build.records_fd, build.report_fd,
               build.lifeline_fd, build.attach_fd});
  umask(0);
  const Status built = Build(build);
  if (!built.ok()) ReportFailure(build.report_fd, built.error());
  _exit(built.ok() ? 0 : 1);
}

}  // namespace pulga
