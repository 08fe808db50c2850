// Volumes and data sets as the API sees them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/state_store.h"
#include "sandbox/volumes/volume_host.h"

namespace pulga {

// What a volume is to be: either a size or an image.
struct VolumeWish {
  uint64_t bytes = 0;
  std::string image;  // as the user wrote it
};

struct VolumeView {
  StoredVolume row;
  std::string image_ref;             // a data set's, for people
  std::optional<VolumeState> state;  // a volume's: how full it is, when the launcher could say
  std::vector<std::string> used_by;  // functions
  std::string trouble;               // why it cannot be used; empty normally
};

struct VolumeList {
  std::vector<VolumeView> volumes;     // by name
  std::vector<VolumeState> unclaimed;  // files without a row
};

struct VolumePut {
  enum class Effect { kCreated, kUnchanged } effect = Effect::kCreated;
  VolumeView volume;
};

}  // namespace pulga
