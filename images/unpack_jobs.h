// What the unpacker does for each kind of job once it is locked in. Every function here parses what
// came from outside and runs without privileges over anything but its own tree.
#pragma once

#include <string>

#include "base/id_map.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "images/unpack_wire.h"

namespace pulga {

struct LayerTarget {
  int root_fd = -1;
  int upper_fd = -1;  // -1 without parents
  UniqueFd times_file;
  UniqueFd spare_file;                          // empty, for a record that has to be written twice
  int record_fd = -1;                           // where the layer's record goes
  std::vector<IdExtent> ids = {{0, 0, 65536}};  // that files may be given to

  int tree_fd() const { return upper_fd >= 0 ? upper_fd : root_fd; }
};
// Unpacks the blob, verifies the digests that are asked for, tells a LayerResult. The importer
// syncs, once.
Status RunUnpackLayer(const UnpackOrder& request, int input_fd, int channel_fd, LayerTarget target);

}  // namespace pulga
