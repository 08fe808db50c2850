// What the daemon's runtime sees of volumes: made, measured and removed by somebody with root.
// Implemented by launcher_client (real) and by tests (fake).
// Loop thread, asynchronous, never blocks. kUnavailable while there is no launcher: what became of
// the request then shows in the next list.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

namespace pulga {

inline constexpr uint64_t kMinVolumeBytes = 4ULL << 20;  // or there is no room for a journal
inline constexpr uint64_t kMaxVolumeBytes = 1ULL << 40;

// A file system of its own for functions to write to.
struct NewVolume {
  uint64_t id = 0;  // the caller's choice, never used again
  uint64_t bytes = 0;
  std::string name;  // for people who find its file
};

// How the disk keeps it.
enum class VolumeStorage : uint8_t {
  kLoopFile,      // a file system in a file, whose space is set aside
  kProjectQuota,  // a directory, where the disk's file system limits projects
};

// What is on the disk under an id.
struct VolumeState {
  uint64_t id = 0;
  uint64_t file_bytes = 0;   // its size
  uint64_t total_bytes = 0;  // what files may take; 0 = unknown
  uint64_t free_bytes = 0;
  bool mounted = false;
  bool damaged = false;
  VolumeStorage storage = VolumeStorage::kLoopFile;
};

class VolumeHost {
 public:
  virtual ~VolumeHost() = default;
  // Ok: it is there, whole and durable; otherwise nothing is.
  virtual void CreateVolume(const NewVolume& volume, std::function<void(Status)> done) = 0;
  // Also while it is mounted. kInvalidArgument: it cannot become so small. Otherwise as it was, or
  // the next list tells.
  virtual void ResizeVolume(uint64_t id, uint64_t bytes, std::function<void(Status)> done) = 0;
  // kAlreadyExists while it is mounted, kNotFound.
  virtual void RemoveVolume(uint64_t id, std::function<void(Status)> done) = 0;
  virtual void ListVolumes(std::function<void(Result<std::vector<VolumeState>>)> done) = 0;
};

// The name a volume goes by in VersionSpec::access, instead of its owner's word for it.
std::string VolumeSource(uint64_t id);
// 0: no such name.
uint64_t VolumeIdOf(const std::string& source);

}  // namespace pulga
