#include "sandbox/volumes/volume_growth.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/units.h"
#include "sandbox/volumes/ext4_super.h"
#include "sandbox/volumes/volume_mounts.h"

namespace pulga {
namespace {

// The kernel's header for programs lacks it.
constexpr unsigned long kResizeFileSystem = _IOW('f', 16, uint64_t);

Result<uint64_t> SizeOf(int image_fd) {
  struct stat st = {};
  if (fstat(image_fd, &st) != 0) return LastError("grow-volume: stat");
  return static_cast<uint64_t>(st.st_size);
}

// Holes too: what the kernel writes as zeros to a loop device gives its space back.
Status TakeSpace(int image_fd, uint64_t bytes) {
  if (PULGA_SYS(fallocate, image_fd, 0, 0, static_cast<off_t>(bytes)) == 0) return OkStatus();
  return LastError("grow-volume: set " + HumanBytes(bytes) + " aside");
}

Status CheckRoom(const VolumesDir& dir, uint64_t bytes) {
  struct statvfs disk = {};
  if (fstatvfs(dir.fd(), &disk) != 0) return LastError("look at the disk");
  if (static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize >= bytes) return OkStatus();
  return Error{Code::kNoSpace, ENOSPC,
               "the disk has less than the " + HumanBytes(bytes) + " the volume is to grow by"};
}

Status GrowDevice(int device_fd, uint64_t bytes) {
  uint64_t now = 0;
  if (PULGA_SYS(ioctl, device_fd, BLKGETSIZE64, &now) != 0) return LastError("loop-size");
  if (now == bytes || PULGA_SYS(ioctl, device_fd, LOOP_SET_CAPACITY) == 0) return OkStatus();
  return LastError("loop-set-capacity");
}

Status GrowFileSystem(const std::string& path, uint64_t blocks) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd top, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (PULGA_SYS(ioctl, top.get(), kResizeFileSystem, &blocks) == 0) return OkStatus();
  return LastError("resize-file-system");
}

// Mounted for ourselves, whoever else has it mounted.
Status GrowMounted(const VolumesDir& dir, uint64_t id) {
  PULGA_RETURN_IF_ERROR(EnterPrivateMounts(dir.fd()));
  VolumeOrder order;
  order.id = id;
  order.target = kVolumeBuildDirectory;
  PULGA_ASSIGN_OR_RETURN(const UniqueFd device, OpenVolumeDevice(dir, id));
  PULGA_RETURN_IF_ERROR(MountLoop(device.get(), order));
  const Status grown = FillFile(dir, {id, device.get(), order.target});
  if (PULGA_SYS(umount2, kVolumeBuildDirectory, MNT_DETACH) != 0 && grown.ok()) {
    return LastError("grow-volume: umount");
  }
  return grown;
}

}  // namespace

Status CanResizeFileSystems() {
  const auto status = ReadFile("/proc/self/status");
  if (!status.ok()) return status.error();
  const size_t at = status->find("CapEff:");
  const uint64_t effective =
      at == std::string::npos ? 0 : strtoull(status->c_str() + at + 7, nullptr, 16);
  if ((effective >> CAP_SYS_RESOURCE & 1) != 0) return OkStatus();
  return Error{Code::kUnsupported, EPERM,
               "a volume in a file grows only under a daemon with CAP_SYS_RESOURCE, which this "
               "one was not given: make a larger one, and copy"};
}

Status GrowVolume(const VolumesDir& dir, const GrowOrder& order) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd image, dir.OpenImage(order.id));
  PULGA_ASSIGN_OR_RETURN(const uint64_t before, SizeOf(image.get()));
  if (order.bytes < before) {
    return Error{Code::kInvalidArgument, 0,
                 "size: it has " + FormatBytes(before) +
                     ", and a file system in a file does not shrink: make a smaller one, and copy"};
  }
  PULGA_RETURN_IF_ERROR(CheckRoom(dir, order.bytes - before));
  PULGA_RETURN_IF_ERROR(CanResizeFileSystems());
  const Status taken = TakeSpace(image.get(), order.bytes);
  if (!taken.ok()) {
    (void)!ftruncate(image.get(), static_cast<off_t>(before));  // nobody uses more of it yet
    return taken;
  }
  if (PULGA_SYS(fsync, image.get()) != 0) return LastError("grow-volume: fsync");
  return GrowMounted(dir, order.id);
}

Status FillFile(const VolumesDir& dir, const MountedVolume& volume) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd image, dir.OpenImage(volume.id));
  PULGA_ASSIGN_OR_RETURN(const uint64_t bytes, SizeOf(image.get()));
  PULGA_RETURN_IF_ERROR(GrowDevice(volume.device_fd, bytes));
  PULGA_ASSIGN_OR_RETURN(const std::string raw,
                         ReadAt(volume.device_fd, kExt4SuperOffset, kExt4SuperBytes));
  const auto super = ParseExt4Super(raw);
  if (!super) return Error{Code::kIo, 0, "grow-volume: no file system"};
  const uint64_t blocks = bytes / super->block_bytes;
  if (super->size_bytes >= blocks * super->block_bytes) return OkStatus();
  PULGA_RETURN_IF_ERROR(GrowFileSystem(volume.path, blocks));
  return TakeSpace(image.get(), bytes);
}

}  // namespace pulga
