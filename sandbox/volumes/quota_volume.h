// Volumes that are directories with a quota, where the disk keeps project quotas: no device, no
// second journal. Nothing is set aside, but the next one is not made of what was promised before.
// The project is the directory's own attribute, which no function can change, so nobody keeps a
// list; its limits go before the directory does.
// In children of the launcher. Blocks: on the disk, and while another works on the same volume.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/volumes/volume_mounts.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

// All or nothing. kNoSpace when the disk has not so much that is neither used nor promised.
Status CreateQuotaVolume(const VolumesDir& dir, uint64_t id, uint64_t bytes);
// kInvalidArgument: more is in use. kNoSpace as above.
Status ResizeQuotaVolume(const VolumesDir& dir, uint64_t id, uint64_t bytes);
// kAlreadyExists while any process has it mounted; waits a little for those that are just ending.
Status RemoveQuotaVolume(const VolumesDir& dir, uint64_t id);
// What a crash left of one, by its unfinished name.
Status SweepQuotaVolume(const VolumesDir& dir, const std::string& name);

struct QuotaState {
  uint64_t limit_bytes = 0;
  uint64_t used_bytes = 0;
  bool mounted = false;
};
// `mounts` is AllMounts(). kIo when its quota is gone: whoever copied it did not take that along.
Result<QuotaState> MeasureQuotaVolume(const VolumesDir& dir, uint64_t id,
                                      const std::string& mounts);
// The mount tables of all processes: of namespaces nobody can look into otherwise.
Result<std::string> AllMounts();

// A mount of it that is attached nowhere yet. While `lock` is open it cannot be removed.
struct QuotaMount {
  UniqueFd lock;
  UniqueFd mount;
};
// From where the launcher's own mounts are seen. Errors as of MeasureQuotaVolume, kNotFound.
Result<QuotaMount> OpenQuotaVolume(const VolumesDir& dir, uint64_t id);
// From anywhere. `order.id` is of no interest.
Status AttachQuotaVolume(const QuotaMount& volume, const VolumeOrder& order);

}  // namespace pulga
