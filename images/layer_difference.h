// Something in a layer's directory that is not as it was unpacked, and how the unpacker tells it to
// the daemon. Paths are bytes of an image: to show, nothing else.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pulga {

struct LayerDifference {
  std::string path;  // in the layer; "" when it is about the layer's record
  std::string what;  // "missing", "added", "content", "size", "mode", ... or a sentence

  bool operator==(const LayerDifference&) const = default;
};

inline constexpr size_t kMaxDifferences = 100;  // told of one layer
inline constexpr size_t kMaxDifferenceBytes = 1 << 20;

std::string EncodeDifferences(const std::vector<LayerDifference>& differences);
std::optional<std::vector<LayerDifference>> DecodeDifferences(std::string_view bytes);

}  // namespace pulga
