// Is a stored layer still what was unpacked? Asks the confined unpacker. Blocks: spool thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "images/image.h"
#include "images/layer_difference.h"
#include "images/record_store.h"
#include "images/unpack_runner.h"

namespace pulga {

struct VerifyTools {
  UnpackRunner& runner;
  RecordStore records;
  std::string scratch_dir;  // for an unnamed file
};

// What differs; nothing when all is well. A layer whose record is gone differs in that.
Result<std::vector<LayerDifference>> VerifyLayer(const VerifyTools& tools,
                                                 const LayerRecord& layer);

}  // namespace pulga
