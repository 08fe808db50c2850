// The JSON of volumes and data sets under /v1; like json_codec.h, whose rules hold. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "runtime/volume.h"

namespace pulga {

std::string VolumeJson(const VolumeView& volume);
std::string VolumeListJson(const VolumeList& list);
// {"size": "64Mi"} or {"image": "models:1"}
Result<VolumeWish> ParseVolumeBody(std::string_view text);
// {"size": "128Mi"}
Result<uint64_t> ParseResizeBody(std::string_view text);

}  // namespace pulga
