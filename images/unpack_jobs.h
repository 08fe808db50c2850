// What the unpacker does for each kind of job once it is locked in. Every function here parses what
// came from outside and runs without privileges over anything but its own tree.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "images/unpack_wire.h"

namespace pulga {

// gzip or zstd `input` -> plain bytes, at most request.max_bytes.
Status RunDecompress(const UnpackOrder& request, int input_fd, int output_fd);
// Plain tar -> EncodeMember() of each file and link.
Status RunScan(const UnpackOrder& request, int input_fd, int output_fd);

struct LayerTarget {
  int root_fd = -1;
  int upper_fd = -1;  // -1 without parents
  UniqueFd times_file;
};
// Unpacks the blob, verifies both digests, tells a LayerResult. The importer syncs, once.
Status RunUnpackLayer(const UnpackOrder& request, int input_fd, int channel_fd, LayerTarget target);

}  // namespace pulga
