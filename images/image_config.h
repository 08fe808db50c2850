// The configuration document of an image: what to run, for which platform, made of which layers.
// null equals absent, unknown fields are ignored, a wrong type is an error that names the field.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/image.h"

namespace pulga {

inline constexpr size_t kMaxConfigBytes = 4 << 20;

struct ParsedConfig {
  Platform platform;  // empty parts where the document says nothing
  ImageConfig config;
  std::vector<std::string> diff_ids;  // 64 hex digits each
};

Result<ParsedConfig> ParseImageConfig(std::string_view json);

}  // namespace pulga
