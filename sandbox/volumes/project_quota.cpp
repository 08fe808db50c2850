#include "sandbox/volumes/project_quota.h"

#include <fcntl.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "base/ids.h"
#include "base/sys.h"

namespace pulga {
namespace {

constexpr uint64_t kQuotaBlock = 1024;
constexpr uint64_t kBytesPerInode = 8192;  // as mke2fs makes them for volumes in a file
constexpr uint64_t kFewestInodes = 1024;
constexpr int kTries = 4096;

constexpr unsigned Command(unsigned command) { return QCMD(command, PRJQUOTA); }

Status WriteLimits(int dir_fd, uint32_t project, const ProjectUse& limits) {
  if_dqblk wanted = {};
  wanted.dqb_bhardlimit = limits.limit_bytes / kQuotaBlock;
  wanted.dqb_ihardlimit = limits.limit_inodes;
  wanted.dqb_valid = QIF_LIMITS;
  if (PULGA_SYS(sys::QuotactlFd, dir_fd, Command(Q_SETQUOTA), project, &wanted) == 0) {
    return OkStatus();
  }
  return LastError("set-quota");
}

}  // namespace

bool CanLimitProjects(int dir_fd) {
  fsxattr attributes = {};
  if (PULGA_SYS(ioctl, dir_fd, FS_IOC_FSGETXATTR, &attributes) != 0) return false;
  // What lies in a project of the administrator's is to count there.
  if (attributes.fsx_projid != 0 || (attributes.fsx_xflags & FS_XFLAG_PROJINHERIT) != 0) {
    return false;
  }
  fs_quota_statv state = {};
  state.qs_version = FS_QSTATV_VERSION1;
  if (PULGA_SYS(sys::QuotactlFd, dir_fd, Command(Q_XGETQSTATV), 0, &state) != 0) return false;
  constexpr unsigned kWanted = FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD;
  return (state.qs_flags & kWanted) == kWanted;
}

Result<ProjectUse> ReadProject(int dir_fd, uint32_t project) {
  if_dqblk found = {};
  if (PULGA_SYS(sys::QuotactlFd, dir_fd, Command(Q_GETQUOTA), project, &found) == 0) {
    return ProjectUse{found.dqb_bhardlimit * kQuotaBlock, found.dqb_curspace, found.dqb_ihardlimit,
                      found.dqb_curinodes};
  }
  if (errno == ENOENT) return ProjectUse{};  // xfs: never heard of it
  if (errno != ESRCH && errno != ENOSYS) return LastError("get-quota");
  return Error{Code::kUnsupported, errno,
               "its file system is not mounted with project quotas any more (prjquota)"};
}

Result<uint32_t> FindFreeProject(int dir_fd) {
  for (int i = 0; i < kTries; ++i) {
    // At random, for daemons that share the file system and do not know of each other.
    uint32_t chosen = 0;
    FillRandom(&chosen, sizeof chosen);
    chosen = kFirstProject + chosen % kProjects;
    PULGA_ASSIGN_OR_RETURN(const ProjectUse use, ReadProject(dir_fd, chosen));
    if (use.unused()) return chosen;
  }
  return Error{Code::kNoSpace, 0, "the project ids for volumes are all in use"};
}

Status JoinProject(int dir_fd, uint32_t project) {
  fsxattr attributes = {};
  if (PULGA_SYS(ioctl, dir_fd, FS_IOC_FSGETXATTR, &attributes) != 0) {
    return LastError("read the project");
  }
  attributes.fsx_projid = project;
  attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
  if (PULGA_SYS(ioctl, dir_fd, FS_IOC_FSSETXATTR, &attributes) != 0) {
    return LastError("set the project");
  }
  return OkStatus();
}

Result<uint32_t> ProjectOf(int dir_fd) {
  fsxattr attributes = {};
  if (PULGA_SYS(ioctl, dir_fd, FS_IOC_FSGETXATTR, &attributes) != 0) {
    return LastError("read the project");
  }
  const bool ours = attributes.fsx_projid - kFirstProject < kProjects;
  return ours && (attributes.fsx_xflags & FS_XFLAG_PROJINHERIT) != 0 ? attributes.fsx_projid : 0;
}

Status LimitProject(int dir_fd, uint32_t project, uint64_t bytes) {
  ProjectUse limits;
  limits.limit_bytes = bytes;
  if (bytes != 0) limits.limit_inodes = std::max(kFewestInodes, bytes / kBytesPerInode);
  return WriteLimits(dir_fd, project, limits);
}

}  // namespace pulga
