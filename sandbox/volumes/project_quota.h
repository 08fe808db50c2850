// Project quotas of the file system that a directory lies on: how much the files below one of its
// directories may take together, whoever owns them. Needs CAP_SYS_ADMIN and Linux 5.14: older
// kernels let the owner of a directory take it out of its project (FS_IOC_SETFLAGS).
// Blocks on the disk.
// Source: quotactl(2); Linux, Documentation/filesystems/ext4, fs/quota/quota.c, fs/file_attr.c.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace pulga {

// No other program's, as far as one can know; who has several data directories on one file system
// shares them. Below what xfs_quota and the like give out by hand, above no limit of the kernel's.
inline constexpr uint32_t kFirstProject = 0x79F00000;
inline constexpr uint32_t kProjects = 65536;

struct ProjectUse {
  uint64_t limit_bytes = 0;  // 0: none
  uint64_t used_bytes = 0;
  uint64_t limit_inodes = 0;
  uint64_t used_inodes = 0;
  bool unused() const { return (limit_bytes | used_bytes | limit_inodes | used_inodes) == 0; }
};

// Whether limits are kept here, and `dir_fd` is in nobody's project: what is made below may get
// projects of its own. Why not is of no interest: there are other ways to keep a volume.
bool CanLimitProjects(int dir_fd);
// kUnsupported: the file system is mounted without them.
Result<ProjectUse> ReadProject(int dir_fd, uint32_t project);
// Of what is used by nobody, one of our range. kNoSpace when there is none.
Result<uint32_t> FindFreeProject(int dir_fd);

// What is made in it from now on is in that project too. An empty directory of root's.
Status JoinProject(int dir_fd, uint32_t project);
// 0: none of our range, or what is made in it would not be in it.
Result<uint32_t> ProjectOf(int dir_fd);
// So much, and inodes for it; 0 = without limit again.
Status LimitProject(int dir_fd, uint32_t project, uint64_t bytes);

}  // namespace pulga
