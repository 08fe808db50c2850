// What the launcher does to volumes, each in a forked child: makes one, looks how full they are,
// removes one. After a crash in the middle of making there is only an unfinished file, which the
// next start removes.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "sandbox/volumes/volume_host.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

inline constexpr size_t kMaxVolumeFiles = 1024;

struct CreateVolumeOrder {
  uint64_t id = 0;
  uint64_t bytes = 0;
  std::string label;
};
// Everybody inside may write to its top directory, as to /tmp. A directory with a quota where the
// disk keeps project quotas, else a file. kNoSpace: nothing was made.
Status CreateVolume(const VolumesDir& dir, const CreateVolumeOrder& order);

// Also while it is mounted; errors as of GrowVolume and ResizeQuotaVolume.
Status ResizeVolume(const VolumesDir& dir, uint64_t id, uint64_t bytes);

// kAlreadyExists while it is mounted; waits a little for instances that are just ending.
Status RemoveVolume(const VolumesDir& dir, uint64_t id);

inline constexpr uint32_t kVolumeMounted = 1;
inline constexpr uint32_t kVolumeDamaged = 2;
inline constexpr uint32_t kVolumeQuota = 4;  // a directory with a project quota
// One of each volume on the disk, as they travel to the daemon.
struct VolumeRecord {
  uint64_t id;
  uint64_t file_bytes;
  uint64_t total_bytes;  // what files may take, 0 when unknown
  uint64_t free_bytes;
  uint32_t flags;
  uint32_t zero;
};
Status MeasureVolumes(const VolumesDir& dir, int out_fd);

}  // namespace pulga
