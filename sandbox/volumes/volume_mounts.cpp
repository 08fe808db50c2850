#include "sandbox/volumes/volume_mounts.h"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "sandbox/volumes/ext4_super.h"
#include "sandbox/volumes/loop_device.h"
#include "sandbox/volumes/volume_growth.h"
#include "sandbox/volumes/volume_tools.h"

namespace pulga {
namespace {

// No access times: they would be a write for each read, on a card that ages by writing.
constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOATIME;
// The tables are zero from the start, so the kernel need not write them in the background.
constexpr const char* kOptions = "errors=remount-ro,noinit_itable";
constexpr useconds_t kPause = 5000;
constexpr int kTries = 3000;  // 15 s: instances that end may still have to write

// Before the first mount only: the caller holds the lock.
Status MakeSound(int image_fd, const std::string& name) {
  PULGA_ASSIGN_OR_RETURN(const std::string raw,
                         ReadAt(image_fd, kExt4SuperOffset, kExt4SuperBytes));
  const auto super = ParseExt4Super(raw);
  if (!super) return Error{Code::kIo, 0, name + " holds no file system any more"};
  // Without a journal only e2fsck can make up for a power cut.
  if (!super->has_errors && (super->clean || super->has_journal)) return OkStatus();
  LogWarning(name + ": checking the file system");
  const Status repaired = RepairExt4(image_fd);
  if (repaired.ok()) return OkStatus();
  return Prefix(name + " is damaged; stop its functions and repair it by hand", repaired.error());
}

}  // namespace

Result<UniqueFd> OpenVolumeDevice(const VolumesDir& dir, uint64_t id) {
  const std::string name = VolumeFileName(id);
  for (int i = 0; i < kTries; ++i) {
    PULGA_ASSIGN_OR_RETURN(const UniqueFd image, dir.OpenImage(id));
    PULGA_ASSIGN_OR_RETURN(const LockState locked, LockImage(image.get()));
    if (locked == LockState::kLocked) {
      PULGA_RETURN_IF_ERROR(MakeSound(image.get(), "volume " + name));
      return AttachLoop(image.get());
    }
    auto found = FindLoop(image.get(), name);
    if (found.ok() || found.error().code != Code::kNotFound) return found;
    usleep(kPause);  // it is being attached, checked, or let go of
  }
  return Error{Code::kUnavailable, EBUSY, "volume " + name + " stays busy"};
}

Status EnterPrivateMounts(int dir_fd) {
  // unshare moves the working directory along; a descriptor stays in the old namespace.
  if (PULGA_SYS(fchdir, dir_fd) != 0) return LastError("volume-chdir");
  if (PULGA_SYS(unshare, CLONE_NEWNS) != 0) return LastError("volume-unshare");
  if (PULGA_SYS(mount, nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return LastError("volume-private-mounts");
  }
  return OkStatus();
}

Status MountLoop(int loop_fd, const VolumeOrder& order) {
  const std::string device = "/proc/self/fd/" + std::to_string(loop_fd);
  const char* target = order.target.c_str();
  if (PULGA_SYS(mount, device.c_str(), target, "ext4", kFlags, kOptions) != 0) {
    if (errno == ENODEV) {
      return Error{Code::kUnsupported, errno, "mount-volume: this kernel has no ext4"};
    }
    return LastError("mount-volume");
  }
  if (order.access == VolumeAccess::kReadWrite) return OkStatus();
  // Of this mount alone: others of the same file system may write.
  const unsigned long locked = MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags;
  if (PULGA_SYS(mount, nullptr, target, nullptr, locked, nullptr) == 0) return OkStatus();
  const Error error = LastError("mount-volume: read-only");
  umount2(target, MNT_DETACH);
  return error;
}

Status MountVolume(const VolumesDir& dir, const VolumeOrder& order) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd device, OpenVolumeDevice(dir, order.id));
  PULGA_RETURN_IF_ERROR(MountLoop(device.get(), order));
  if (order.access == VolumeAccess::kReadOnly || !CanResizeFileSystems().ok()) return OkStatus();
  const Status filled = FillFile(dir, {order.id, device.get(), order.target});
  if (!filled.ok()) {  // it is as good as before
    LogWarning("volume " + VolumeFileName(order.id) + ": " + filled.error().message);
  }
  return OkStatus();
}

}  // namespace pulga
