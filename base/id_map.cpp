#include "base/id_map.h"

#include <algorithm>

#include "base/text.h"

namespace pulga {

std::vector<IdExtent> ParseIdMap(std::string_view text) {
  std::vector<IdExtent> out;
  for (const std::string_view line : Split(text, '\n')) {
    std::vector<uint32_t> numbers;
    for (const std::string_view word : Split(line, ' ')) {
      const auto number = ParseUint(word, UINT32_MAX);
      if (number.has_value()) numbers.push_back(static_cast<uint32_t>(*number));
    }
    if (numbers.size() == 3) out.push_back({numbers[0], numbers[1], numbers[2]});
  }
  std::sort(out.begin(), out.end(),
            [](const IdExtent& a, const IdExtent& b) { return a.inside < b.inside; });
  return out;
}

bool MapsId(const std::vector<IdExtent>& map, uint64_t inside) {
  return std::any_of(map.begin(), map.end(), [&](const IdExtent& extent) {
    return inside >= extent.inside && inside - extent.inside < extent.count;
  });
}

}  // namespace pulga
