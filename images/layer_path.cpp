#include "images/layer_path.h"

#include <vector>

#include "base/text.h"

namespace pulga {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";
constexpr std::string_view kMetadataPrefix = ".wh..wh.";

Error BadName(std::string_view raw, std::string_view why) {
  return {Code::kInvalidArgument, 0, Printable(raw, 200) + ": " + std::string(why)};
}

}  // namespace

PathSplit SplitPath(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

std::optional<std::string> CleanPath(std::string_view path) {
  std::string out;
  for (const std::string_view part : Split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (out.empty()) return std::nullopt;
      out.resize(SplitPath(out).parent.size());
      continue;
    }
    if (!out.empty()) out += '/';
    out += part;
  }
  return out;
}

Result<LayerPath> ParseLayerPath(std::string_view raw) {
  if (raw.find('\0') != std::string_view::npos) return BadName(raw, "the name holds a NUL");
  // Long names are refused before they are cleaned: cleaning could make any length look short.
  if (raw.size() > 2 * kMaxPathBytes) return BadName(raw, "the name is too long");
  // ".wh..", ".wh..." must be seen before cleaning, as ".wh." + "." or "..".
  auto clean = CleanPath(raw);
  if (!clean) return BadName(raw, "the name leaves the root directory");
  if (clean->size() > kMaxPathBytes) return BadName(raw, "the name is too long");
  const auto [parent, leaf] = SplitPath(*clean);
  for (const std::string_view part : Split(*clean, '/')) {
    if (part.size() > kMaxNameBytes) return BadName(raw, "a part of the name is too long");
  }
  if (leaf == kOpaqueName && parent.find(kWhiteoutPrefix) == std::string_view::npos) {
    return LayerPath{EntryName::kOpaque, std::string(parent)};
  }
  for (const std::string_view part : Split(*clean, '/')) {
    if (part.starts_with(kMetadataPrefix)) return LayerPath{EntryName::kMetadata, *clean};
  }
  for (const std::string_view part : Split(parent, '/')) {
    if (part.starts_with(kWhiteoutPrefix)) return BadName(raw, "a whiteout is no directory");
  }
  if (!leaf.starts_with(kWhiteoutPrefix)) return LayerPath{EntryName::kPlain, std::move(*clean)};
  const std::string_view hidden = leaf.substr(kWhiteoutPrefix.size());
  if (hidden.empty() || hidden == "." || hidden == "..") return BadName(raw, "an invalid whiteout");
  std::string path(parent);
  if (!path.empty()) path += '/';
  return LayerPath{EntryName::kWhiteout, path + std::string(hidden)};
}

}  // namespace pulga
