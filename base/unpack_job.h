// A job for a confined helper process: what the daemon asks, the launcher confines and images/
// carries out. The launcher reads only this struct, never `request` or any file's content; what
// each kind may have is the table of sandbox/job_rules.h. A helper starts in namespaces of its own
// (ids 0..65535 mapped to the owner's host range), as id 0 there, with these descriptors, /dev/null
// where there is none:
//   3 request, to end of file   4 input   5 output   6 the job's empty staging directory, owned by
//   id 0   7 channel   8, 9, ... one directory per parent layer, base first
// 6, 8, ... must be opened inside the helper's mount namespace (an overlay refuses mounts of any
// other); O_PATH is enough. /proc is needed. tests/support/forked_unpacker.cpp shows how.
// Exit status 0 means done. Everything else publishes nothing; the reason is the channel's last
// event (images/job_events.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/unique_fd.h"

namespace pulga {

enum class UnpackKind : uint32_t {
  kIngest = 1,       // input: an upload as it arrives, or a file; output: its plain bytes; each
                     // member's name, place and SHA-256 goes to the channel once it is complete
  kFetch = 2,        // pulga-fetcher: output: blobs of a registry; channel: as kIngest
  kUnpackLayer = 3,  // input: archive or blob; staging becomes the upper of `parents`, published as
                     // `target` by the launcher with one rename; output: the layer record, if any
  kList = 4,         // output: the flattened tree of `parents` (image inspect --tree)
  kSums = 5,         // output: sha256sum lines of `parents` (image inspect --sums)
  kRemove = 6,       // deletes the layer `target`, which the launcher has moved into staging
  kVerify = 7,       // input: a layer record; is the topmost of `parents` what it says?
  kExportLayer = 8   // input: a layer record; output: the layer's tar again
};

inline constexpr int kUnpackRequestFd = 3;
inline constexpr int kUnpackInputFd = 4;
inline constexpr int kUnpackOutputFd = 5;
inline constexpr int kUnpackStagingFd = 6;
inline constexpr int kUnpackChannelFd = 7;
inline constexpr int kUnpackFirstParentFd = 8;
inline constexpr size_t kMaxLayers = 128;
inline constexpr size_t kMaxUnpackRequestBytes = 32 * 1024;

struct UnpackJob {
  UnpackKind kind = UnpackKind::kList;
  std::vector<LayerId> parents;  // base first, at most kMaxLayers
  LayerId target;                // kUnpackLayer and kRemove
  std::string request;           // for the helper, opaque to everybody else
  UniqueFd input;
  UniqueFd output;
  UniqueFd
      channel;  // the write end of a pipe: what the helper tells while it works, bounded events
};

}  // namespace pulga
