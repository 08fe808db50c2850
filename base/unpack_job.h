// A job for the confined unpacker: what the daemon asks, the launcher confines and images/ carries
// out. The launcher reads only this struct, never `request` or any file's content.
//
// The unpacker starts in its own user (ids 0..65535 mapped to the owner's host range), mount, pid,
// net, ipc and uts namespaces, as id 0 of the user namespace, with these descriptors:
//   3 request (bytes, to end of file)   4 input (read-only; /dev/null if none)
//   5 output (regular file, writable)   6 the job's empty staging directory, owned by id 0
//   7, 8, ... one directory per parent layer, base first
// 6, 7, ... must be opened inside the unpacker's mount namespace (an overlay refuses mounts of any
// other: unshare first, then open by way of the working directory, while the host's id 0 still owns
// layers/); O_PATH is enough. /proc is needed. tests/support/forked_unpacker.cpp shows how.
// Exit status 0 means done. Everything else (the reason is in the output file) publishes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/unique_fd.h"

namespace pulga {

enum class UnpackKind : uint32_t {
  kDecompress = 1,   // input: gzip or zstd; output: the plain bytes
  kScan = 2,         // input: a plain tar; output: the index of its members
  kUnpackLayer = 3,  // input: archive or blob; staging becomes the upper of `parents`, published as
                     // `target` by the launcher with one rename
  kList = 4,         // output: the flattened tree of `parents` (image inspect --tree)
  kSums = 5,         // output: sha256sum lines of `parents` (image inspect --sums)
  kRemove = 6,       // deletes the layer `target`, which the launcher has moved into staging
};

inline constexpr int kUnpackRequestFd = 3;
inline constexpr int kUnpackInputFd = 4;
inline constexpr int kUnpackOutputFd = 5;
inline constexpr int kUnpackStagingFd = 6;
inline constexpr int kUnpackFirstParentFd = 7;
inline constexpr size_t kMaxLayers = 128;
inline constexpr size_t kMaxUnpackRequestBytes = 16 * 1024;

struct UnpackJob {
  UnpackKind kind = UnpackKind::kScan;
  std::vector<LayerId> parents;  // base first, at most kMaxLayers
  LayerId target;                // kUnpackLayer and kRemove
  std::string request;           // for images/unpacker_main, opaque to everybody else
  UniqueFd input;
  UniqueFd output;
};

}  // namespace pulga
