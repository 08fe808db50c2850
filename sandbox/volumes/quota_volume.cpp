#include "sandbox/volumes/quota_volume.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <set>
#include <vector>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/units.h"
#include "sandbox/id_ranges.h"
#include "sandbox/volumes/project_quota.h"

namespace pulga {
namespace {

constexpr mode_t kRootMode = 01777;
constexpr useconds_t kPause = 5000;
constexpr int kLockTries = 3000;   // 15 s
constexpr int kRemoveTries = 400;  // 2 s
constexpr size_t kMaxMounts = 16 << 20;
constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV | MS_NOATIME;
// These values are the same ones for statvfs and for mount.
constexpr unsigned long kKeptOfHost = MS_RDONLY | MS_NOEXEC;

Result<ProjectUse> UseOf(int folder_fd, const std::string& name) {
  PULGA_ASSIGN_OR_RETURN(const uint32_t project, ProjectOf(folder_fd));
  ProjectUse use;
  if (project != 0) {
    auto read = ReadProject(folder_fd, project);
    if (!read.ok()) return Prefix("volume " + name, read.error());
    use = *read;
  }
  if (use.limit_bytes != 0) return use;
  return Error{Code::kIo, 0, "volume " + name + " has no quota any more: copy it into a new one"};
}

// Whoever makes one holds the directory's lock, so that no two of them choose one project.
Result<UniqueFd> LockDirectory(const VolumesDir& dir) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFileAt(dir.fd(), ".", O_RDONLY | O_DIRECTORY));
  if (PULGA_SYS(flock, fd.get(), LOCK_EX) != 0) return LastError("lock the volumes");
  return fd;
}

// What others may still write, and the disk has to have left for it.
Result<uint64_t> PromisedBytes(const VolumesDir& dir) {
  PULGA_ASSIGN_OR_RETURN(const std::vector<uint64_t> ids, dir.List());
  uint64_t promised = 0;
  for (const uint64_t id : ids) {
    if (dir.StorageOf(id) != VolumeStorage::kProjectQuota) continue;
    const auto folder = dir.OpenFolder(id);
    const auto use = folder.ok() ? UseOf(folder->get(), VolumeFolderName(id)) : folder.error();
    if (use.ok() && use->limit_bytes > use->used_bytes) {
      promised += use->limit_bytes - use->used_bytes;
    }
  }
  return promised;
}

Status CheckRoom(const VolumesDir& dir, uint64_t bytes) {
  struct statvfs disk = {};
  if (fstatvfs(dir.fd(), &disk) != 0) return LastError("look at the disk");
  const uint64_t free = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
  PULGA_ASSIGN_OR_RETURN(const uint64_t promised, PromisedBytes(dir));
  if (free >= promised && free - promised >= bytes) return OkStatus();
  return Error{Code::kNoSpace, ENOSPC,
               "the disk has less than the " + HumanBytes(bytes) + " the volume is to take, and " +
                   HumanBytes(promised) + " that other volumes may still take"};
}

Status FillFolder(const VolumesDir& dir, int folder_fd, uint64_t bytes) {
  PULGA_ASSIGN_OR_RETURN(const uint32_t project, FindFreeProject(dir.fd()));
  PULGA_RETURN_IF_ERROR(JoinProject(folder_fd, project));
  PULGA_RETURN_IF_ERROR(LimitProject(folder_fd, project, bytes));
  if (PULGA_SYS(fchown, folder_fd, kOwnerIdBase, kOwnerIdBase) != 0) return LastError("chown");
  if (PULGA_SYS(fchmod, folder_fd, kRootMode) != 0) return LastError("chmod");
  if (PULGA_SYS(fsync, folder_fd) != 0) return LastError("fsync");
  return OkStatus();
}

bool IsMounted(const std::string& mounts, uint64_t id) {
  return mounts.find("/" + VolumeFolderName(id)) != std::string::npos;
}

struct FolderLock {
  uint64_t id = 0;
  int operation = LOCK_SH;  // who mounts it; LOCK_EX: who removes it
};

// Locked, and still the volume of that id.
Result<LockState> LockFolder(const VolumesDir& dir, int folder_fd, const FolderLock& lock) {
  if (PULGA_SYS(flock, folder_fd, lock.operation | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return LockState::kHeldElsewhere;
    return LastError("lock the volume");
  }
  PULGA_ASSIGN_OR_RETURN(const UniqueFd again, dir.OpenFolder(lock.id));
  return LockState::kLocked;
}

}  // namespace

Status CreateQuotaVolume(const VolumesDir& dir, uint64_t id, uint64_t bytes) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd lock, LockDirectory(dir));
  PULGA_RETURN_IF_ERROR(CheckRoom(dir, bytes));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd folder, dir.MakeFolder(id));
  Status made = FillFolder(dir, folder.get(), bytes);
  if (made.ok()) made = dir.PublishFolder(id);
  if (made.ok()) return made;
  const Status swept = SweepQuotaVolume(dir, UnfinishedFolderName(id));
  if (!swept.ok() && swept.error().sys_errno != ENOENT) {  // as when it was published already
    LogWarning("left to the next start: " + swept.error().message);
  }
  return made;
}

Status ResizeQuotaVolume(const VolumesDir& dir, uint64_t id, uint64_t bytes) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd lock, LockDirectory(dir));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd folder, dir.OpenFolder(id));
  PULGA_ASSIGN_OR_RETURN(const ProjectUse use, UseOf(folder.get(), VolumeFolderName(id)));
  if (bytes < use.used_bytes) {
    return Error{Code::kInvalidArgument, 0,
                 "size: " + HumanBytes(use.used_bytes) + " of it are in use"};
  }
  if (bytes > use.limit_bytes) PULGA_RETURN_IF_ERROR(CheckRoom(dir, bytes - use.limit_bytes));
  PULGA_ASSIGN_OR_RETURN(const uint32_t project, ProjectOf(folder.get()));
  PULGA_RETURN_IF_ERROR(LimitProject(folder.get(), project, bytes));
  if (PULGA_SYS(fsync, folder.get()) != 0) return LastError("resize the volume: fsync");
  return OkStatus();
}

Status RemoveQuotaVolume(const VolumesDir& dir, uint64_t id) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd folder, dir.OpenFolder(id));
  for (int i = 0; i < kRemoveTries; ++i, usleep(kPause)) {
    PULGA_ASSIGN_OR_RETURN(const LockState locked, LockFolder(dir, folder.get(), {id, LOCK_EX}));
    if (locked != LockState::kLocked) continue;
    // Who mounts it next waits for the lock, and does not find it then.
    PULGA_ASSIGN_OR_RETURN(const std::string mounts, AllMounts());
    if (!IsMounted(mounts, id)) {
      PULGA_RETURN_IF_ERROR(dir.HideFolder(id));
      return SweepQuotaVolume(dir, UnfinishedFolderName(id));
    }
    flock(folder.get(), LOCK_UN);
  }
  return Error{Code::kAlreadyExists, EBUSY, "the volume is still mounted"};
}

Status SweepQuotaVolume(const VolumesDir& dir, const std::string& name) {
  {
    auto folder = OpenFileAt(dir.fd(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!folder.ok()) return folder.error();
    const auto project = ProjectOf(folder->get());
    // Before the only trace of its number goes. Where quotas are not kept any more there is nothing
    // to give back.
    if (project.ok() && *project != 0 && ReadProject(folder->get(), *project).ok()) {
      PULGA_RETURN_IF_ERROR(LimitProject(folder->get(), *project, 0));
    }
  }
  PULGA_RETURN_IF_ERROR(RemoveTree(dir.fd(), name));
  if (PULGA_SYS(fsync, dir.fd()) != 0) return LastError("remove " + name + ": fsync");
  return OkStatus();
}

Result<QuotaState> MeasureQuotaVolume(const VolumesDir& dir, uint64_t id,
                                      const std::string& mounts) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd folder, dir.OpenFolder(id));
  PULGA_ASSIGN_OR_RETURN(const ProjectUse use, UseOf(folder.get(), VolumeFolderName(id)));
  return QuotaState{use.limit_bytes, use.used_bytes, IsMounted(mounts, id)};
}

Result<std::string> AllMounts() {
  const std::unique_ptr<DIR, int (*)(DIR*)> processes(opendir("/proc"), &closedir);
  if (processes == nullptr) return LastError("mounts: /proc");
  std::set<std::string> seen;
  std::string all;
  while (const dirent* entry = readdir(processes.get())) {
    if (!ParseUint(entry->d_name)) continue;
    const std::string process = std::string("/proc/") + entry->d_name;
    char link[64];
    const ssize_t size = readlink((process + "/ns/mnt").c_str(), link, sizeof link);
    if (size > 0 && !seen.emplace(link, static_cast<size_t>(size)).second) continue;
    const auto mounts = ReadFile(process + "/mountinfo", kMaxMounts);
    if (mounts.ok()) all += *mounts;  // else it ended
  }
  return all;
}

Result<QuotaMount> OpenQuotaVolume(const VolumesDir& dir, uint64_t id) {
  const std::string name = VolumeFolderName(id);
  for (int i = 0; i < kLockTries; ++i, usleep(kPause)) {
    QuotaMount out;
    PULGA_ASSIGN_OR_RETURN(out.lock, dir.OpenFolder(id));
    PULGA_ASSIGN_OR_RETURN(const LockState locked, LockFolder(dir, out.lock.get(), {id, LOCK_SH}));
    if (locked != LockState::kLocked) continue;
    PULGA_RETURN_IF_ERROR(UseOf(out.lock.get(), name));
    out.mount.Reset(PULGA_SYS(sys::CloneMount, out.lock.get()));
    if (!out.mount.valid()) return LastError("open volume " + name);
    return out;
  }
  return Error{Code::kUnavailable, EBUSY, "volume " + name + " stays busy"};
}

Status AttachQuotaVolume(const QuotaMount& volume, const VolumeOrder& order) {
  const char* target = order.target.c_str();
  struct statvfs st = {};
  if (PULGA_SYS(sys::AttachMount, volume.mount.get(), target) != 0 || statvfs(target, &st) != 0) {
    return LastError("mount-volume");
  }
  unsigned long flags = kSafe | (st.f_flag & kKeptOfHost);
  if (order.access == VolumeAccess::kReadOnly) flags |= MS_RDONLY;
  if (PULGA_SYS(mount, nullptr, target, nullptr, MS_REMOUNT | MS_BIND | flags, nullptr) == 0) {
    return OkStatus();
  }
  const Error error = LastError("mount-volume: flags");
  umount2(target, MNT_DETACH);
  return error;
}

}  // namespace pulga
