// The configuration document of an image: what to run, for which platform, made of which layers.
// null equals absent, unknown fields are ignored, a wrong type is an error that names the field.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/image.h"

namespace pulga {

inline constexpr size_t kMaxConfigBytes = 1 << 20;
// What an image may keep of the daemon's memory: its command and environment, each entry with
// what a string costs; beyond, the image is refused. Labels beyond theirs are left out.
inline constexpr size_t kMaxRunBytes = 256 * 1024;
inline constexpr size_t kMaxLabelBytes = 64 * 1024;

struct ParsedConfig {
  Platform platform;  // empty parts where the document says nothing
  ImageConfig config;
  std::vector<std::string> diff_ids;  // 64 hex digits each
};

Result<ParsedConfig> ParseImageConfig(std::string_view json);

}  // namespace pulga
