// ImageConfig as the JSON text of its row in the state store. Ours on both ends: the archive's own
// configuration is parsed by images/ alone, once, when it is imported. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "images/image.h"

namespace pulga {

std::string ImageConfigToJson(const ImageConfig& config);
Result<ImageConfig> ImageConfigFromJson(std::string_view text);

}  // namespace pulga
