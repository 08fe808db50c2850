#include "images/disk_reserve.h"

#include <sys/vfs.h>

#include <algorithm>
#include <string>

#include "base/units.h"

namespace pulga {
namespace {

constexpr uint64_t kLookEvery = 1 << 20;
constexpr uint64_t kBytesPerInode = 16384;  // what mkfs.ext4 assumes
constexpr uint64_t kInodesEvery = 256;      // more than are made between two looks

}  // namespace

Status DiskReserve::Spend(uint64_t bytes) {
  if (reserve_bytes_ == 0) return OkStatus();
  if (bytes > left_) {
    const uint64_t wanted = std::max(bytes, kLookEvery);
    PULGA_RETURN_IF_ERROR(Look(wanted));
    left_ = wanted;
  }
  left_ -= bytes;
  return OkStatus();
}

Status DiskReserve::Look(uint64_t wanted) const {
  struct statfs disk = {};
  if (fstatfs(fd_, &disk) != 0) return LastError("look at the disk");
  const uint64_t free_bytes =
      static_cast<uint64_t>(disk.f_bavail) * static_cast<uint64_t>(disk.f_bsize);
  if (free_bytes < reserve_bytes_ || free_bytes - reserve_bytes_ < wanted) {
    return Error{Code::kNoSpace, 0,
                 "not enough space on the disk: " + HumanBytes(free_bytes) + " free, of which " +
                     HumanBytes(reserve_bytes_) + " are kept (setting reserve-bytes)"};
  }
  // File systems without a table of inodes say 0.
  const uint64_t inodes = disk.f_files;
  const uint64_t kept = std::min(reserve_bytes_ / kBytesPerInode, inodes / 16);
  if (inodes == 0 || disk.f_ffree >= kept + kInodesEvery) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "not enough inodes on the disk: " + std::to_string(disk.f_ffree) +
                   " free, of which " + std::to_string(kept) + " are kept (setting reserve-bytes)"};
}

}  // namespace pulga
