// The launcher's hold on DATA/volumes, by one fd taken at start: one file per volume, an ext4 file
// system of fixed size whose space is set aside when it is made, or a directory with a quota
// (quota_volume.h). The daemon names them by number.
// A file is believed to be a file system of our own making because nobody but root can have put it
// there: the directory must be root's alone, each file root's (or the tools', while they ran).
// Who works on a file holds its lock; a loop device keeps the lock for as long as it is attached,
// so that no file system is ever mounted twice. Blocks on the disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/volumes/volume_host.h"

namespace pulga {

inline constexpr const char* kVolumeBuildDirectory = ".mnt";  // empty: a mount point

class VolumesDir {
 public:
  // Makes what has to be there. kPermission when anybody but root could have written there.
  static Result<VolumesDir> Open(UniqueFd fd);

  // nullopt: there is none.
  std::optional<VolumeStorage> StorageOf(uint64_t id) const;
  Result<std::vector<uint64_t>> List() const;
  // Read-write. kNotFound; kPermission when it is no file of ours.
  Result<UniqueFd> OpenImage(uint64_t id) const;
  // An unfinished one of `bytes`, locked; its blocks are taken from the disk now.
  Result<UniqueFd> MakeImage(uint64_t id, uint64_t bytes) const;
  // The unfinished one becomes the volume, durably.
  Status Publish(uint64_t id) const;
  Status Remove(uint64_t id) const;
  void RemoveUnfinished(uint64_t id) const;
  // Read-only. kNotFound; kPermission when it is no directory.
  Result<UniqueFd> OpenFolder(uint64_t id) const;
  // An unfinished one of root's alone, empty.
  Result<UniqueFd> MakeFolder(uint64_t id) const;
  Status PublishFolder(uint64_t id) const;
  // The volume becomes an unfinished one, durably.
  Status HideFolder(uint64_t id) const;
  // All unfinished files: nothing is running. The names of unfinished folders, which take longer.
  Result<std::vector<std::string>> RemoveLeftovers() const;

  int fd() const { return fd_.get(); }

 private:
  explicit VolumesDir(UniqueFd fd) : fd_(std::move(fd)) {}
  Status Rename(const std::string& from, const std::string& to) const;
  UniqueFd fd_;
};

// "00000000000000ff.ext4"
std::string VolumeFileName(uint64_t id);
// "00000000000000ff.quota"
std::string VolumeFolderName(uint64_t id);
std::string UnfinishedFolderName(uint64_t id);

enum class LockState { kLocked, kHeldElsewhere };
// For as long as this open file, or a loop device made of it, lives.
Result<LockState> LockImage(int image_fd);

}  // namespace pulga
