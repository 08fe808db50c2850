#include "sandbox/kernel_probes.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/seccomp.h"
#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/apparmor.h"
#include "sandbox/cgroup.h"
#include "sandbox/id_ranges.h"
#include "sandbox/privileges.h"
#include "sandbox/seccomp_profile.h"

namespace pulga::kernel_probes {
namespace {

constexpr unsigned kCloseRangeCloexec = 1U << 2;
constexpr unsigned kLandlockVersionFlag = 1;
constexpr long kLandlockCreateRuleset =
    444;  // the same on every machine; Debian 12's libc lacks it

// fork, not a thread: the probe changes namespaces. The child allocates nothing: the caller may
// have other threads.
template <typename Probe>
int InChild(Probe probe) {
  const pid_t pid = fork();
  if (pid < 0) return errno;
  if (pid == 0) _exit(probe());
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kChildDied;
}

int Outcome(long result) { return result < 0 ? errno : 0; }

int WriteText(const char* path, const char* text) {
  const UniqueFd fd(open(path, O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  return write(fd.get(), text, strlen(text)) < 0 ? errno : 0;
}

// Maps id 0 to the caller's own, which even the unprivileged may do.
int MapOwnIds(uid_t uid, gid_t gid) {
  char line[64];
  snprintf(line, sizeof line, "0 %u 1", uid);
  if (const int error = WriteText("/proc/self/uid_map", line)) return error;
  WriteText("/proc/self/setgroups", "deny");
  snprintf(line, sizeof line, "0 %u 1", gid);
  return WriteText("/proc/self/gid_map", line);
}

int MountOverlay() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return errno;
  if (const int error = MapOwnIds(uid, gid)) return error;
  // Any directory will do as a place for scratch files; /proc is always there.
  if (mount("probe", "/proc", "tmpfs", 0, nullptr) != 0) return errno;
  for (const char* dir : {"/proc/l", "/proc/u", "/proc/w", "/proc/m"}) {
    if (mkdir(dir, 0755) != 0) return errno;
  }
  const char* options = "lowerdir=/proc/l,upperdir=/proc/u,workdir=/proc/w,userxattr";
  return Outcome(mount("probe", "/proc/m", "overlay", 0, options));
}

// A process in a user namespace of its own, for as long as this lives.
class UserNamespaceHolder {
 public:
  UserNamespaceHolder() {
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      // After the unshare, which forgets it; the parent may be killed at any moment.
      const bool done = unshare(CLONE_NEWUSER) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
                        write(ready[1], "1", 1) == 1;
      if (done) pause();
      _exit(1);
    }
    close(ready[1]);
    char byte = 0;
    ready_ = pid_ > 0 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
  }
  UserNamespaceHolder(const UserNamespaceHolder&) = delete;
  UserNamespaceHolder& operator=(const UserNamespaceHolder&) = delete;
  ~UserNamespaceHolder() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  UniqueFd MappedNamespace() const {
    if (!ready_) return UniqueFd();
    char path[64];
    for (const char* map : {"uid_map", "gid_map"}) {
      snprintf(path, sizeof path, "/proc/%d/%s", pid_, map);
      if (WriteText(path, "0 100000 65536") != 0) return UniqueFd();
    }
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid_);
    return UniqueFd(open(path, O_RDONLY | O_CLOEXEC));
  }

 private:
  pid_t pid_ = -1;
  bool ready_ = false;
};

int SetIdMap() {
  const UserNamespaceHolder holder;
  const UniqueFd ns = holder.MappedNamespace();
  if (!ns.valid()) return EPERM;
  const UniqueFd tree(
      static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (!tree.valid()) return errno;
  mount_attr attr = {};
  attr.attr_set = MOUNT_ATTR_IDMAP;
  attr.userns_fd = static_cast<uint64_t>(ns.get());
  return Outcome(syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attr, sizeof attr));
}

// A cgroup of our own below `base` for the life of this object.
class ScratchCgroup {
 public:
  explicit ScratchCgroup(const std::string& base)
      : path_(base + "/pulga-probe-" + std::to_string(getpid())) {
    error_ = Outcome(mkdir(path_.c_str(), 0755));
  }
  ScratchCgroup(const ScratchCgroup&) = delete;
  ScratchCgroup& operator=(const ScratchCgroup&) = delete;
  ~ScratchCgroup() {
    if (error_ == 0) rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }
  int error() const { return error_; }

 private:
  std::string path_;
  int error_ = 0;
};

}  // namespace

int Namespace(int clone_flag) {
  // Without the right to it, as launchers of users make theirs. Root of a user namespace, as some
  // daemons are, may have none.
  const auto ids = ReadHostIds();
  const bool root = geteuid() == 0 && ids.ok() && ids->on_host;
  const int together = root ? clone_flag : clone_flag | CLONE_NEWUSER;
  return InChild([together] { return Outcome(unshare(together)); });
}

int SeccompFilter() {
  return InChild([] {
    if (!NoNewPrivs().ok()) return EPERM;
    const int failed = LoadSeccomp(SpawnerFilter());
    return failed != 0 ? failed : LoadSeccomp(InstanceFilter());
  });
}

int FilterListener() {
  return InChild([] {
    if (!NoNewPrivs().ok()) return EPERM;
    return Outcome(LoadSeccompWithListener(CountingSpawnerFilter()));
  });
}

int OverlayInUserNamespace() { return InChild(MountOverlay); }

int IdMappedMount() { return InChild(SetIdMap); }

int OpenAt2() {
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT;
  const UniqueFd fd(sys::OpenAt2(AT_FDCWD, "/", how));
  return fd.valid() ? 0 : errno;
}

int Clone3() {
  // A size of 0 is refused by a kernel that knows the call at all.
  syscall(SYS_clone3, nullptr, 0);
  return errno == EINVAL ? 0 : errno;
}

int PidFd() {
  const UniqueFd fd(sys::PidfdOpen(getpid()));
  return fd.valid() ? 0 : errno;
}

int CloseRangeCloexec() {
  constexpr unsigned kNowhere = 1U << 30;
  return Outcome(sys::CloseRange(kNowhere, kNowhere, kCloseRangeCloexec));
}

int LandlockVersion() {
  const long version = syscall(kLandlockCreateRuleset, nullptr, 0, kLandlockVersionFlag);
  return version < 0 ? -errno : static_cast<int>(version);
}

// By asking for it in a child that then ends, as a spawner does.
int AppArmorProfile() {
  return InChild([] { return AskForAppArmor(); });
}

int CloneIntoCgroup(const std::string& v2_base) {
  const ScratchCgroup cgroup(v2_base);
  if (cgroup.error() != 0) return cgroup.error();
  const UniqueFd dir(open(cgroup.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid()) return errno;
  clone_args args = {};
  args.flags = CLONE_INTO_CGROUP;
  args.exit_signal = SIGCHLD;
  args.cgroup = static_cast<uint64_t>(dir.get());
  const long pid = sys::Clone3(args);
  if (pid < 0) return errno;
  if (pid == 0) _exit(0);
  waitpid(static_cast<pid_t>(pid), nullptr, 0);
  return 0;
}

int DeviceLimits(const CgroupHierarchy& hierarchy) {
  const ScratchCgroup cgroup(hierarchy.base);
  if (cgroup.error() != 0) return cgroup.error();
  const Status done =
      ApplyDeviceLimits(cgroup.path(), DeviceLimitsFor(hierarchy.version, HarmlessDevices()));
  return done.ok() ? 0 : done.error().sys_errno;
}

int FileInNewCgroup(const std::string& v2_base, const std::string& file) {
  const ScratchCgroup cgroup(v2_base);
  if (cgroup.error() != 0) return cgroup.error();
  return Outcome(access((cgroup.path() + "/" + file).c_str(), F_OK));
}

}  // namespace pulga::kernel_probes
