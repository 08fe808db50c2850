// Mounting a volume: by the set-up child of a version, and by jobs that look into one. Each mounts
// for itself; the kernel gives all of them the same file system, because there is one loop device
// per file: whoever finds the file locked uses the device that holds the lock. So nobody counts
// users, and nothing is left to sweep: device and file system go with their last mount.
// Own process, in a mount namespace of its own. Blocks: also while an earlier user is still going.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

enum class VolumeAccess : uint8_t { kReadWrite, kReadOnly };

struct VolumeOrder {
  uint64_t id = 0;
  VolumeAccess access = VolumeAccess::kReadWrite;
  std::string target;  // a directory nobody else can change meanwhile
};
// nosuid, nodev; programs may be executed, as in /tmp. What a power cut left is replayed, what the
// kernel found damaged is repaired first, or the mount refused (kIo).
Status MountVolume(const VolumesDir& dir, const VolumeOrder& order);

// The device that a volume in a file stands on, checked and attached when nobody did so before.
Result<UniqueFd> OpenVolumeDevice(const VolumesDir& dir, uint64_t id);

// A mount namespace of our own, and the directory `fd` as seen in it the current one.
Status EnterPrivateMounts(int dir_fd);
// An open loop device's file system, for as long as it takes; never repaired.
Status MountLoop(int loop_fd, const VolumeOrder& order);

}  // namespace pulga
