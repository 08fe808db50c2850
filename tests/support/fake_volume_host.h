// VolumeHost in memory: files that are numbers. What a test says fails.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "sandbox/volumes/volume_host.h"

namespace pulga::testing {

class FakeVolumeHost final : public VolumeHost {
 public:
  void CreateVolume(const NewVolume& volume, std::function<void(Status)> done) override {
    if (failure.ok() || left_by_failure) disk[volume.id] = volume.bytes;
    done(failure);
  }
  void ResizeVolume(uint64_t id, uint64_t bytes, std::function<void(Status)> done) override {
    if (failure.ok()) disk[id] = bytes;
    done(failure);
  }
  void RemoveVolume(uint64_t id, std::function<void(Status)> done) override {
    if (!removal.ok()) return done(removal);
    if (disk.erase(id) != 0) return done(OkStatus());
    done(Error{Code::kNotFound, 0, "no file"});
  }
  void ListVolumes(std::function<void(Result<std::vector<VolumeState>>)> done) override {
    std::vector<VolumeState> states;
    for (const auto& [id, bytes] : disk)
      states.push_back({id, bytes, bytes, bytes, false, false, storage});
    done(std::move(states));
  }

  std::map<uint64_t, uint64_t> disk;
  VolumeStorage storage = VolumeStorage::kLoopFile;
  Status failure;  // of the next creations
  Status removal;
  bool left_by_failure = false;
};

}  // namespace pulga::testing
