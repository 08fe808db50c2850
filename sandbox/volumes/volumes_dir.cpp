#include "sandbox/volumes/volumes_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/units.h"
#include "sandbox/id_ranges.h"

namespace pulga {
namespace {

constexpr const char* kSuffix = ".ext4";
constexpr const char* kFolderSuffix = ".quota";
constexpr const char* kUnfinishedPrefix = ".new-";
constexpr size_t kIdDigits = 16;

std::string UnfinishedName(uint64_t id) { return kUnfinishedPrefix + VolumeFileName(id); }

Status CheckOwn(const struct stat& st, const std::string& what) {
  const bool ours = st.st_uid == 0 || st.st_uid == kVolumeToolsHostId;
  if (S_ISREG(st.st_mode) && st.st_nlink == 1 && ours && (st.st_mode & 07177) == 0) {
    return OkStatus();
  }
  return Error{Code::kPermission, 0, what + ": not a file that only root could have made"};
}

}  // namespace

std::string VolumeFileName(uint64_t id) { return VolumeSource(id) + kSuffix; }

std::string VolumeFolderName(uint64_t id) { return VolumeSource(id) + kFolderSuffix; }

std::string UnfinishedFolderName(uint64_t id) { return kUnfinishedPrefix + VolumeFolderName(id); }

std::string VolumeSource(uint64_t id) {
  char name[kIdDigits + 1];
  snprintf(name, sizeof name, "%016llx", static_cast<unsigned long long>(id));
  return name;
}

uint64_t VolumeIdOf(const std::string& source) {
  const auto raw = source.size() == kIdDigits ? HexDecode(source) : std::nullopt;
  uint64_t id = 0;
  for (const char c : raw.value_or("")) id = id << 8 | static_cast<unsigned char>(c);
  return id;
}

Result<LockState> LockImage(int image_fd) {
  if (PULGA_SYS(flock, image_fd, LOCK_EX | LOCK_NB) == 0) return LockState::kLocked;
  if (errno == EWOULDBLOCK) return LockState::kHeldElsewhere;
  return LastError("lock the volume");
}

Result<VolumesDir> VolumesDir::Open(UniqueFd fd) {
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return LastError("volumes: stat");
  if (!S_ISDIR(st.st_mode) || st.st_uid != 0 || (st.st_mode & 0077) != 0) {
    return Error{Code::kPermission, 0, "volumes: the directory is not root's alone"};
  }
  if (PULGA_SYS(mkdirat, fd.get(), kVolumeBuildDirectory, 0700) != 0 && errno != EEXIST) {
    return LastError("volumes: mkdir " + std::string(kVolumeBuildDirectory));
  }
  return VolumesDir(std::move(fd));
}

std::optional<VolumeStorage> VolumesDir::StorageOf(uint64_t id) const {
  struct stat st = {};
  const auto has = [&](const std::string& name) {
    return fstatat(fd_.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  };
  if (has(VolumeFileName(id))) return VolumeStorage::kLoopFile;
  if (has(VolumeFolderName(id))) return VolumeStorage::kProjectQuota;
  return std::nullopt;
}

Result<std::vector<uint64_t>> VolumesDir::List() const {
  const auto names = ListNames(fd_.get());
  if (!names.ok()) return Prefix("volumes", names.error());
  std::vector<uint64_t> ids;
  for (const std::string& name : *names) {
    const uint64_t id = VolumeIdOf(name.substr(0, kIdDigits));
    if (id == 0) continue;
    if (name == VolumeFileName(id) || name == VolumeFolderName(id)) ids.push_back(id);
  }
  return ids;
}

Result<UniqueFd> VolumesDir::OpenImage(uint64_t id) const {
  const std::string name = VolumeFileName(id);
  auto fd = OpenFileAt(fd_.get(), name, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok()) {
    if (fd.error().sys_errno != ENOENT) return fd;
    return Error{Code::kNotFound, ENOENT, "volume " + name + " is missing on the disk"};
  }
  struct stat st = {};
  if (fstat(fd->get(), &st) != 0) return LastError("stat volume " + name);
  PULGA_RETURN_IF_ERROR(CheckOwn(st, "volume " + name));
  return fd;
}

Result<UniqueFd> VolumesDir::MakeImage(uint64_t id, uint64_t bytes) const {
  const std::string name = UnfinishedName(id);
  // fallocate would fill the disk for a moment before it finds out.
  struct statvfs disk = {};
  if (fstatvfs(fd_.get(), &disk) != 0) return LastError("look at the disk");
  if (static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize < bytes) {
    return Error{Code::kNoSpace, ENOSPC,
                 "the disk has less than the " + HumanBytes(bytes) + " the volume is to take"};
  }
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd,
                         OpenFileAt(fd_.get(), name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  Status made;
  PULGA_ASSIGN_OR_RETURN(const LockState locked, LockImage(fd.get()));
  if (locked != LockState::kLocked) made = Error{Code::kUnavailable, 0, "make the volume: busy"};
  // Taken now, so that a disk that fills up later never breaks a file system in use.
  if (made.ok() && PULGA_SYS(fallocate, fd.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
    made = errno == EOPNOTSUPP
               ? Error{Code::kUnsupported, errno,
                       "set space aside: the data directory's file system cannot (fallocate)"}
               : LastError("set " + HumanBytes(bytes) + " aside");
  }
  if (made.ok()) return fd;
  unlinkat(fd_.get(), name.c_str(), 0);
  return made.error();
}

Status VolumesDir::Rename(const std::string& from, const std::string& to) const {
  if (PULGA_SYS(renameat2, fd_.get(), from.c_str(), fd_.get(), to.c_str(), RENAME_NOREPLACE) != 0) {
    return LastError("volume " + from + " to " + to);
  }
  if (PULGA_SYS(fsync, fd_.get()) != 0) return LastError("volume " + to + ": fsync");
  return OkStatus();
}

Status VolumesDir::Publish(uint64_t id) const {
  return Rename(UnfinishedName(id), VolumeFileName(id));
}

Status VolumesDir::Remove(uint64_t id) const {
  const std::string name = VolumeFileName(id);
  if (PULGA_SYS(unlinkat, fd_.get(), name.c_str(), 0) != 0) {
    return LastError("remove volume " + name);
  }
  if (PULGA_SYS(fsync, fd_.get()) != 0) return LastError("remove volume " + name + ": fsync");
  return OkStatus();
}

void VolumesDir::RemoveUnfinished(uint64_t id) const {
  unlinkat(fd_.get(), UnfinishedName(id).c_str(), 0);
}

Result<UniqueFd> VolumesDir::OpenFolder(uint64_t id) const {
  const std::string name = VolumeFolderName(id);
  auto fd = OpenFileAt(fd_.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd.ok()) return fd;
  const int error = fd.error().sys_errno;
  if (error == ENOENT) {
    return Error{Code::kNotFound, ENOENT, "volume " + name + " is missing on the disk"};
  }
  if (error != ELOOP && error != ENOTDIR) return fd;
  return Error{Code::kPermission, error, "volume " + name + ": not a directory"};
}

Result<UniqueFd> VolumesDir::MakeFolder(uint64_t id) const {
  const std::string name = UnfinishedFolderName(id);
  if (PULGA_SYS(mkdirat, fd_.get(), name.c_str(), 0700) != 0) return LastError("mkdir " + name);
  auto fd = OpenFileAt(fd_.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd.ok()) unlinkat(fd_.get(), name.c_str(), AT_REMOVEDIR);
  return fd;
}

Status VolumesDir::PublishFolder(uint64_t id) const {
  return Rename(UnfinishedFolderName(id), VolumeFolderName(id));
}

Status VolumesDir::HideFolder(uint64_t id) const {
  return Rename(VolumeFolderName(id), UnfinishedFolderName(id));
}

Result<std::vector<std::string>> VolumesDir::RemoveLeftovers() const {
  const auto names = ListNames(fd_.get());
  if (!names.ok()) return Prefix("volumes", names.error());
  Status result;
  std::vector<std::string> folders;
  for (const std::string& name : *names) {
    if (name.rfind(kUnfinishedPrefix, 0) != 0) continue;
    if (name.ends_with(kFolderSuffix)) {
      folders.push_back(name);
      continue;
    }
    if (PULGA_SYS(unlinkat, fd_.get(), name.c_str(), 0) != 0) result = LastError("remove " + name);
  }
  if (!result.ok()) return result.error();
  return folders;
}

}  // namespace pulga
