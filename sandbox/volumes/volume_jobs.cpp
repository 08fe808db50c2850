#include "sandbox/volumes/volume_jobs.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_io.h"
#include "base/sys.h"
#include "sandbox/volumes/ext4_super.h"
#include "sandbox/volumes/loop_device.h"
#include "sandbox/volumes/project_quota.h"
#include "sandbox/volumes/quota_volume.h"
#include "sandbox/volumes/volume_growth.h"
#include "sandbox/volumes/volume_mounts.h"
#include "sandbox/volumes/volume_tools.h"

namespace pulga {
namespace {

constexpr mode_t kRootMode = 01777;
constexpr useconds_t kPause = 10000;
constexpr int kRemoveTries = 200;  // 2 s

Status SetUpRoot() {
  const std::string root = kVolumeBuildDirectory;
  // e2fsck makes it again when it has something to put there; programs want an empty directory.
  if (PULGA_SYS(rmdir, (root + "/lost+found").c_str()) != 0) return LastError("lost+found");
  if (PULGA_SYS(chmod, root.c_str(), kRootMode) != 0) return LastError("chmod");
  return OkStatus();
}

Status FinishImage(const VolumesDir& dir, int image_fd) {
  PULGA_RETURN_IF_ERROR(EnterPrivateMounts(dir.fd()));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd device, AttachLoop(image_fd));
  VolumeOrder order;
  order.target = kVolumeBuildDirectory;
  PULGA_RETURN_IF_ERROR(MountLoop(device.get(), order));
  const Status done = SetUpRoot();
  if (PULGA_SYS(umount2, kVolumeBuildDirectory, 0) != 0) return LastError("umount");
  return done;
}

Status FillImage(const VolumesDir& dir, int image_fd, const CreateVolumeOrder& order) {
  PULGA_RETURN_IF_ERROR(FormatExt4(image_fd, {order.bytes, order.label}));
  PULGA_RETURN_IF_ERROR(FinishImage(dir, image_fd));
  if (PULGA_SYS(fsync, image_fd) != 0) return LastError("fsync");
  return dir.Publish(order.id);
}

// The current directory is the volumes directory, in a mount namespace of ours.
void LookInside(int image_fd, VolumeRecord& record) {
  const auto device = FindLoop(image_fd, VolumeFileName(record.id));
  if (!device.ok()) return;
  record.flags |= kVolumeMounted;
  VolumeOrder order;
  order.target = kVolumeBuildDirectory;
  if (!MountLoop(device->get(), order).ok()) return;
  struct statvfs st = {};
  if (statvfs(kVolumeBuildDirectory, &st) == 0) {
    record.total_bytes = static_cast<uint64_t>(st.f_blocks) * st.f_frsize;
    record.free_bytes = static_cast<uint64_t>(st.f_bavail) * st.f_frsize;
  }
  umount2(kVolumeBuildDirectory, 0);
}

void ReadSuper(int image_fd, VolumeRecord& record) {
  const auto raw = ReadAt(image_fd, kExt4SuperOffset, kExt4SuperBytes);
  const auto super = raw.ok() ? ParseExt4Super(*raw) : std::nullopt;
  if (!super || super->has_errors) record.flags |= kVolumeDamaged;
  if (!super) return;
  record.total_bytes = super->total_bytes;
  record.free_bytes = super->free_bytes;
}

VolumeRecord MeasureFolder(const VolumesDir& dir, uint64_t id, const std::string& mounts) {
  VolumeRecord record = {};
  record.id = id;
  record.flags = kVolumeQuota;
  const auto state = MeasureQuotaVolume(dir, id, mounts);
  if (!state.ok()) {
    record.flags |= kVolumeDamaged;
    return record;
  }
  if (state->mounted) record.flags |= kVolumeMounted;
  record.file_bytes = record.total_bytes = state->limit_bytes;
  record.free_bytes = state->limit_bytes - std::min(state->limit_bytes, state->used_bytes);
  return record;
}

VolumeRecord MeasureFile(const VolumesDir& dir, uint64_t id) {
  VolumeRecord record = {};
  record.id = id;
  const auto image = dir.OpenImage(id);
  struct stat st = {};
  if (!image.ok() || fstat(image->get(), &st) != 0) {
    record.flags = kVolumeDamaged;
    return record;
  }
  record.file_bytes = static_cast<uint64_t>(st.st_size);
  const auto locked = LockImage(image->get());
  if (!locked.ok()) return record;
  if (*locked == LockState::kLocked) {
    ReadSuper(image->get(), record);
  } else {
    LookInside(image->get(), record);
  }
  return record;
}

}  // namespace

Status CreateVolume(const VolumesDir& dir, const CreateVolumeOrder& order) {
  if (CanLimitProjects(dir.fd())) return CreateQuotaVolume(dir, order.id, order.bytes);
  PULGA_RETURN_IF_ERROR(OpenLoopControl());  // or it could never be mounted
  PULGA_ASSIGN_OR_RETURN(const UniqueFd image, dir.MakeImage(order.id, order.bytes));
  const Status made = FillImage(dir, image.get(), order);
  if (!made.ok()) dir.RemoveUnfinished(order.id);
  return made;
}

Status ResizeVolume(const VolumesDir& dir, uint64_t id, uint64_t bytes) {
  if (dir.StorageOf(id) == VolumeStorage::kProjectQuota) return ResizeQuotaVolume(dir, id, bytes);
  return GrowVolume(dir, {id, bytes});
}

Status RemoveVolume(const VolumesDir& dir, uint64_t id) {
  if (dir.StorageOf(id) == VolumeStorage::kProjectQuota) return RemoveQuotaVolume(dir, id);
  PULGA_ASSIGN_OR_RETURN(const UniqueFd image, dir.OpenImage(id));
  for (int i = 0; i < kRemoveTries; ++i) {
    PULGA_ASSIGN_OR_RETURN(const LockState locked, LockImage(image.get()));
    if (locked == LockState::kLocked) return dir.Remove(id);
    usleep(kPause);
  }
  return Error{Code::kAlreadyExists, EBUSY, "the volume is still mounted"};
}

Status MeasureVolumes(const VolumesDir& dir, int out_fd) {
  PULGA_ASSIGN_OR_RETURN(const std::vector<uint64_t> ids, dir.List());
  const auto is_folder = [&](uint64_t id) {
    return dir.StorageOf(id) == VolumeStorage::kProjectQuota;
  };
  std::string mounts;
  if (std::any_of(ids.begin(), ids.end(), is_folder)) {
    PULGA_ASSIGN_OR_RETURN(mounts, AllMounts());
  }
  PULGA_RETURN_IF_ERROR(EnterPrivateMounts(dir.fd()));
  for (const uint64_t id : ids) {
    const VolumeRecord record =
        is_folder(id) ? MeasureFolder(dir, id, mounts) : MeasureFile(dir, id);
    const auto* raw = reinterpret_cast<const char*>(&record);
    PULGA_RETURN_IF_ERROR(WriteAll(out_fd, std::string_view(raw, sizeof record)));
  }
  return OkStatus();
}

}  // namespace pulga
