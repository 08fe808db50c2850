#include "images/layer_difference.h"

#include "base/text.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

constexpr size_t kMaxWhat = 200;
constexpr size_t kMaxPath = 4096;

}  // namespace

std::string EncodeDifferences(const std::vector<LayerDifference>& differences) {
  FieldWriter out;
  for (const LayerDifference& difference : differences) {
    out.PutBytes(difference.path);
    out.PutBytes(difference.what);
  }
  return out.bytes();
}

std::optional<std::vector<LayerDifference>> DecodeDifferences(std::string_view bytes) {
  FieldReader in(bytes);
  std::vector<LayerDifference> differences;
  while (!in.empty() && in.ok() && differences.size() < kMaxDifferences) {
    const std::string_view path = in.Bytes();
    const std::string_view what = in.Bytes();
    differences.push_back({Printable(path, kMaxPath), Printable(what, kMaxWhat)});
  }
  if (!in.AtEnd()) return std::nullopt;
  return differences;
}

}  // namespace pulga
