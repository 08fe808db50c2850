#include "images/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/file_io.h"
#include "base/seccomp.h"
#include "base/sys.h"

namespace pulga {

// From images/unpacker_syscalls.txt, made by cmake/seccomp.cmake.
std::span<const sock_filter> UnpackerSeccomp();

namespace {

std::string FdPath(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

// Topmost first, as overlay wants it.
std::string LowerDirs(std::span<const int> parents) {
  std::string out;
  for (size_t i = parents.size(); i-- > 0;) {
    out += FdPath(parents[i]);
    if (i != 0) out += ':';
  }
  return out;
}

Result<UniqueFd> MakeDir(int staging_fd, const char* name) {
  if (mkdirat(staging_fd, name, 0755) != 0) return LastError(std::string("mkdir ") + name);
  return OpenFileAt(staging_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

Result<UniqueFd> MountOverlay(int staging_fd, const std::string& options, unsigned long flags) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return LastError("make the mounts private");
  }
  PULGA_ASSIGN_OR_RETURN(const UniqueFd point, MakeDir(staging_fd, "merged"));
  const std::string where = FdPath(staging_fd) + "/merged";
  if (mount("overlay", where.c_str(), "overlay", flags | MS_NOSUID | MS_NODEV | MS_NOEXEC,
            options.c_str()) != 0) {
    Error error = LastError("mount the overlay of the parent layers");
    // EPERM before Linux 5.11, EINVAL where `userxattr` is unknown, ENODEV without the module.
    const int why = error.sys_errno;
    if (why == EPERM || why == EINVAL || why == ENODEV) error.code = Code::kUnsupported;
    return error;
  }
  return OpenFileAt(staging_fd, "merged", O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

// A directory's attributes in an overlay are those of its topmost layer.
Status CopyRootAttributes(int from_fd, int to_fd) {
  struct stat st = {};
  if (fstat(from_fd, &st) != 0) return LastError("stat the parent layer");
  if (fchown(to_fd, st.st_uid, st.st_gid) != 0) return LastError("chown upper");
  if (fchmod(to_fd, st.st_mode & 07777) != 0) return LastError("chmod upper");
  const timespec times[2] = {st.st_mtim, st.st_mtim};
  if (futimens(to_fd, times) != 0) return LastError("set times of upper");
  return OkStatus();
}

Status DropCapabilities(Keep keep) {
  // EPERM: whoever started us has bounded us already. Either way nothing is executed from here on.
  for (int cap = 0; cap <= 63; ++cap) {
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EINVAL && errno != EPERM) {
      return LastError("drop the bounding set");
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  uint64_t kept = 0;
  if (keep == Keep::kFileOwnership) {
    kept = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID;
  }
  if (sys::SetCapabilities(kept, 0) != 0) return LastError("drop capabilities");
  return OkStatus();
}

}  // namespace

Result<MergedView> MountForWriting(std::span<const int> parents, int staging_fd) {
  MergedView view;
  PULGA_ASSIGN_OR_RETURN(UniqueFd upper, MakeDir(staging_fd, "upper"));
  if (parents.empty()) {
    if (fchmod(upper.get(), 0755) != 0) return LastError("chmod upper");
    view.root = std::move(upper);
    return view;
  }
  PULGA_RETURN_IF_ERROR(CopyRootAttributes(parents.back(), upper.get()));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd work, MakeDir(staging_fd, "work"));
  const std::string staging = FdPath(staging_fd);
  // volatile: no fsync for each copied-up directory; the importer syncs once, and work/ is thrown
  // away.
  const std::string options = "lowerdir=" + LowerDirs(parents) + ",upperdir=" + staging +
                              "/upper,workdir=" + staging +
                              "/work,userxattr,index=off,xino=off,volatile";
  PULGA_ASSIGN_OR_RETURN(view.root, MountOverlay(staging_fd, options, MS_NOATIME));
  view.upper = std::move(upper);
  return view;
}

Result<MergedView> MountForReading(std::span<const int> parents, int staging_fd) {
  MergedView view;
  if (parents.size() == 1) {
    PULGA_ASSIGN_OR_RETURN(view.root, OpenFileAt(parents[0], ".", O_RDONLY | O_DIRECTORY));
    return view;
  }
  if (parents.empty()) return Error{Code::kInvalidArgument, 0, "no layers"};
  const std::string options = "lowerdir=" + LowerDirs(parents) + ",userxattr,xino=off";
  PULGA_ASSIGN_OR_RETURN(view.root, MountOverlay(staging_fd, options, MS_RDONLY | MS_NOATIME));
  return view;
}

Status LockIn(int root_fd, Keep keep) {
  if (fchdir(root_fd) != 0) return LastError("enter the root");
  if (chroot(".") != 0) return LastError("chroot");
  if (chdir("/") != 0) return LastError("chdir to the root");
  PULGA_RETURN_IF_ERROR(DropCapabilities(keep));
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return LastError("set no_new_privs");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return LastError("clear dumpable");
  const int error = LoadSeccomp(UnpackerSeccomp());
  if (error != 0) return ErrnoError("load the system call list", error);
  return OkStatus();
}

Status LimitFiles(uint64_t max_file_bytes) {
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  const std::pair<__rlimit_resource, uint64_t> wanted[] = {
      {RLIMIT_FSIZE, max_file_bytes}, {RLIMIT_CORE, 0}, {RLIMIT_NOFILE, 256}};
  for (const auto& [resource, value] : wanted) {
    rlimit limit = {};
    if (getrlimit(resource, &limit) != 0) return LastError("getrlimit");
    limit.rlim_max = std::min<rlim_t>(limit.rlim_max, value);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) != 0) return LastError("setrlimit");
  }
  return OkStatus();
}

}  // namespace pulga
