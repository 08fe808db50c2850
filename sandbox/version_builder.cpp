#include "sandbox/version_builder.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/build_report.h"
#include "sandbox/clone_child.h"
#include "sandbox/id_maps.h"
#include "sandbox/id_ranges.h"
#include "sandbox/mount_apply.h"
#include "sandbox/skeleton.h"
#include "sandbox/spawner.h"

namespace pulga {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSpawnerMemory = 1ULL << 30;
#else
constexpr uint64_t kSpawnerMemory = 32ULL << 20;
#endif

constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV;

Status Mount(const char* step, const char* source, const char* target, const char* type,
             unsigned long flags, const std::string& data) {
  if (PULGA_SYS(mount, source, target, type, flags, data.empty() ? nullptr : data.c_str()) == 0) {
    return OkStatus();
  }
  return LastError(step);
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

// "userxattr,lowerdir=TOP:/proc/self/fd/N:..." with the last layer on top: 128 fit into one page.
std::string OverlayOptions(const char* top, const std::vector<UniqueFd>& layers) {
  std::string options = std::string("userxattr,lowerdir=") + top;
  for (size_t i = layers.size(); i-- > 0;) {
    options += ":/proc/self/fd/" + std::to_string(layers[i].get());
  }
  return options;
}

// Current directory: the tmpfs that holds skeleton/ and root/. Ends with the overlay on root/.
// Returns the working directory as resolved.
Result<std::string> MountRoot(const VersionBuild& build, const std::vector<UniqueFd>& layers) {
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
    PULGA_ASSIGN_OR_RETURN(working_dir, FillSkeleton(options));
  }
  if (PULGA_SYS(umount2, "image", MNT_DETACH) != 0) return LastError("skeleton: umount");
  PULGA_RETURN_IF_ERROR(Mount("mount-overlay", "overlay", "root", "overlay", flags,
                              OverlayOptions("skeleton", layers)));
  return working_dir;
}

void MountProcAndExit(void*) {
  const int failed = mount("proc", "proc", "proc", kSafe | MS_NOEXEC, nullptr) != 0 ? errno : 0;
  _exit(failed);
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

// The root with everything every instance shares, entered; nothing of the host left to see.
Result<std::string> EnterTemplate(const VersionBuild& build) {
  PULGA_RETURN_IF_ERROR(EnterMountNamespace(build.layers_fd));
  PULGA_ASSIGN_OR_RETURN(const auto layers, OpenLayers(build.spec.layers));
  PULGA_RETURN_IF_ERROR(Mount("mount-template", "tmpfs", kBuildDirectory, "tmpfs", kSafe,
                              "size=2m,nr_inodes=8192,mode=0700"));
  PULGA_RETURN_IF_ERROR(ChangeDir("mount-template", kBuildDirectory));
  PULGA_ASSIGN_OR_RETURN(std::string working_dir, MountRoot(build, layers));
  PULGA_RETURN_IF_ERROR(ChangeDir("enter-root", "root"));
  const std::vector<MountEntry> mounts = TemplateMounts();
  const StepResult applied = ApplyMounts(mounts);
  if (!applied.ok()) return ErrnoError(applied.step, applied.sys_errno);
  PULGA_RETURN_IF_ERROR(MountEmptyProc());
  if (sys::Faulted() || sys::PivotRoot(".", ".") != 0) return LastError("pivot-root");
  if (PULGA_SYS(umount2, ".", MNT_DETACH) != 0) return LastError("detach-old-root");
  PULGA_RETURN_IF_ERROR(ChangeDir("enter-root", "/"));
  return working_dir;
}

// Functions are the first to go when the board itself runs out of memory.
void PreferForOomKill() {
  auto fd = OpenFile("/proc/self/oom_score_adj", O_WRONLY);
  if (fd.ok()) (void)!write(fd->get(), "500", 3);
}

Status JoinSpawnerCgroup(const CgroupJoin& join) {
  std::vector<int> tasks;
  for (const UniqueFd& fd : join.v1_tasks) tasks.push_back(fd.get());
  const int failed = sys::Faulted() ? errno : JoinCgroup(tasks);
  if (failed != 0) return ErrnoError("join-cgroup", failed);
  return OkStatus();
}

// Tells the launcher of its new child before that child may run.
Status StartSpawner(VersionBuild& build, VersionCgroups& cgroups, std::string working_dir,
                    int proc_fd) {
  PULGA_RETURN_IF_ERROR(JoinSpawnerCgroup(cgroups.spawner));
  int pipe_fds[2];
  if (PULGA_SYS(pipe2, pipe_fds, O_CLOEXEC) != 0) return LastError("spawner-pipe");
  const UniqueFd wait_end(pipe_fds[0]);
  const UniqueFd go_end(pipe_fds[1]);
  SpawnerInput input;
  input.spec = std::move(build.spec);
  input.spec.working_dir = std::move(working_dir);
  input.slots = std::move(cgroups.slots);
  input.socket_fd = build.socket_fd;
  input.records_fd = build.records_fd;
  input.report_fd = build.report_fd;
  input.lifeline_fd = build.lifeline_fd;
  input.start_fd = wait_end.get();
  CloneOptions options;
  options.flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
                  CLONE_NEWUTS | CLONE_PARENT;
  options.exit_signal = 0;
  options.cgroup_fd = cgroups.spawner.v2_dir.get();
  const pid_t pid = CloneChild(options, SpawnerMain, &input);
  if (pid < 0) return LastError("clone-spawner");
  const Status mapped = WriteIdMaps(proc_fd, pid, SpawnerHostId(input.spec.version_id));
  if (!mapped.ok()) {
    kill(pid, SIGKILL);  // the launcher reaps it: it is no child of ours
    return mapped;
  }
  const std::string warnings = Join(cgroups.warnings, "\n");
  SendReport(build.report_fd, MakeReport(ReportKind::kStarted, pid, warnings));
  if (PULGA_SYS(write, go_end.get(), "", 1) != 1) return LastError("start-spawner");
  return OkStatus();
}

Status Build(VersionBuild& build) {
  VersionCgroupOptions options;
  options.version_id = build.spec.version_id;
  options.slots = build.spec.slots;
  options.limits = build.spec.limits;
  options.spawner_memory_bytes = kSpawnerMemory;
  options.spawner_pids = build.spec.slots + 16U;
  options.spawner_uid = SpawnerHostId(build.spec.version_id);
  options.disk = build.disk;
  auto cgroups = build.cgroups->CreateVersion(options);
  if (!cgroups.ok()) return Prefix("cgroups", cgroups.error());
  PULGA_ASSIGN_OR_RETURN(const UniqueFd proc_fd, OpenFile("/proc", O_PATH | O_DIRECTORY));
  PreferForOomKill();
  PULGA_ASSIGN_OR_RETURN(std::string working_dir, EnterTemplate(build));
  return StartSpawner(build, *cgroups, std::move(working_dir), proc_fd.get());
}

}  // namespace

void BuildVersionAndExit(VersionBuild build) {
  SetLogTag("set-up");
  CloseAllBut(
      {build.layers_fd, build.socket_fd, build.records_fd, build.report_fd, build.lifeline_fd});
  umask(0);
  const Status built = Build(build);
  if (!built.ok()) ReportFailure(build.report_fd, built.error());
  _exit(built.ok() ? 0 : 1);
}

}  // namespace pulga
