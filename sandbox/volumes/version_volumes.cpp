#include "sandbox/volumes/version_volumes.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/sys.h"
#include "sandbox/id_ranges.h"
#include "sandbox/volumes/volume_host.h"
#include "sandbox/volumes/volume_mounts.h"

namespace pulga {
namespace {

constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV;
constexpr unsigned long kReadOnly = MS_RDONLY;
// These values are the same ones for statvfs and for mount.
constexpr unsigned long kKeptOfHost = MS_RDONLY | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME;

Status MountOwn(const VolumesDir* dir, const OpenVolume& volume, const std::string& target) {
  if (dir == nullptr) return Error{Code::kUnsupported, 0, "there is no volumes directory"};
  VolumeOrder order;
  order.id = VolumeIdOf(volume.mount.source);
  order.access = volume.mount.read_only ? VolumeAccess::kReadOnly : VolumeAccess::kReadWrite;
  order.target = target;
  if (volume.folder.mount.valid()) return AttachQuotaVolume(volume.folder, order);
  return MountVolume(*dir, order);
}

// An overlay wants two layers at least: the topmost one is empty, and lends its owner and mode.
Status MountDataSet(const OpenVolume& volume, size_t index, const std::string& target) {
  const std::string top = "set-" + std::to_string(index);
  if (PULGA_SYS(mkdir, top.c_str(), 0755) != 0 ||
      PULGA_SYS(chown, top.c_str(), kOwnerIdBase, kOwnerIdBase) != 0) {
    return LastError("mount-data-set: mkdir");
  }
  const std::string options = OverlayOptions(top, volume.layers);
  if (PULGA_SYS(mount, "overlay", target.c_str(), "overlay", kSafe | MS_RDONLY, options.c_str()) !=
      0) {
    return LastError("mount-data-set");
  }
  return OkStatus();
}

// The granted directory itself, wherever symlinks on the way might lead.
Status BindHostDirectory(const OpenVolume& wanted, const std::string& target) {
  const VolumeMount& volume = wanted.mount;
  const UniqueFd root(PULGA_SYS(open, "/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return LastError("bind-host-directory: /");
  const UniqueFd fd(sys::Faulted() ? -1
                                   : sys::OpenBeneath(root.get(), volume.source.c_str() + 1,
                                                      O_PATH | O_DIRECTORY));
  if (!fd.valid()) return LastError("bind-host-directory: open " + volume.source);
  if (wanted.owner) {
    return MountOwned({fd.get(), *wanted.owner, target,
                       volume.read_only ? MountUse::kReadOnly : MountUse::kReadWrite});
  }
  const std::string source = "/proc/self/fd/" + std::to_string(fd.get());
  struct statvfs st = {};
  if (PULGA_SYS(mount, source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
      statvfs(target.c_str(), &st) != 0) {
    return LastError("bind-host-directory");
  }
  const unsigned long flags =
      kSafe | (st.f_flag & kKeptOfHost) | (volume.read_only ? kReadOnly : 0UL);
  if (PULGA_SYS(mount, nullptr, target.c_str(), nullptr, MS_REMOUNT | MS_BIND | flags, nullptr) !=
      0) {
    return LastError("bind-host-directory: remount");
  }
  return OkStatus();
}

Status MountOne(const VolumesDir* dir, const OpenVolume& volume, size_t index) {
  const std::string target = "root" + volume.mount.path;
  switch (volume.mount.kind) {
    case VolumeKind::kVolume:
      return MountOwn(dir, volume, target);
    case VolumeKind::kDataSet:
      return MountDataSet(volume, index, target);
    case VolumeKind::kHost:
      return BindHostDirectory(volume, target);
  }
  return Error{Code::kInvalidArgument, 0, "unknown kind"};
}

Error At(const VolumeMount& volume, const Error& error) {
  return Prefix("volume at " + volume.path, error);
}

}  // namespace

std::string OverlayOptions(const std::string& top, const std::vector<UniqueFd>& layers) {
  std::string options = "userxattr,lowerdir=" + top;
  for (size_t i = layers.size(); i-- > 0;) {
    options += ":/proc/self/fd/" + std::to_string(layers[i].get());
  }
  return options;
}

Status CheckResolved(const std::vector<VolumeMount>& volumes) {
  for (const VolumeMount& volume : volumes) {
    const bool numbered = volume.kind == VolumeKind::kHost || VolumeIdOf(volume.source) != 0;
    const bool layered = volume.kind == VolumeKind::kDataSet;
    if (numbered && layered != volume.layers.empty()) continue;
    return At(volume, Error{Code::kInvalidArgument, 0, "it is not resolved"});
  }
  return OkStatus();
}

Status PlaceVolumes(const SkeletonOptions& skeleton, std::vector<VolumeMount>& volumes) {
  for (VolumeMount& volume : volumes) {
    auto inside = AddMountPoint(skeleton, volume.path);
    if (!inside.ok()) return At(volume, inside.error());
    volume.path = std::move(*inside);
  }
  for (const VolumeMount& volume : volumes) {
    for (const VolumeMount& other : volumes) {
      if (&other == &volume || !IsBelow(volume.path, other.path)) continue;
      return At(volume, Error{Code::kInvalidArgument, 0, "lies inside the one at " + other.path});
    }
  }
  return OkStatus();
}

Result<std::vector<OpenVolume>> HoldVolumes(const VolumesDir* dir,
                                            const std::vector<VolumeMount>& volumes) {
  std::vector<OpenVolume> out;
  for (const VolumeMount& volume : volumes) {
    OpenVolume& open = out.emplace_back();
    open.mount = volume;
    const uint64_t id = VolumeIdOf(volume.source);
    if (dir == nullptr || volume.kind != VolumeKind::kVolume) continue;
    if (dir->StorageOf(id) != VolumeStorage::kProjectQuota) continue;
    auto folder = OpenQuotaVolume(*dir, id);
    if (!folder.ok()) return At(volume, folder.error());
    open.folder = std::move(*folder);
  }
  return out;
}

Status MountVolumes(const VolumesDir* dir, const std::vector<OpenVolume>& volumes) {
  for (size_t i = 0; i < volumes.size(); ++i) {
    const Status mounted = MountOne(dir, volumes[i], i);
    if (!mounted.ok()) return At(volumes[i].mount, mounted.error());
  }
  return OkStatus();
}

}  // namespace pulga
