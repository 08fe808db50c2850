// Names inside archives, pure text: cleaning, whiteouts, limits. Nothing here touches a file.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

inline constexpr size_t kMaxPathBytes = 4095;
inline constexpr size_t kMaxNameBytes = 255;

// "./a//b/../c/" -> "a/c"; "/", "." and "" -> "" (the root). nullopt when ".." leaves the root.
std::optional<std::string> CleanPath(std::string_view path);

enum class EntryName {
  kPlain,
  kWhiteout,  // `path` is what it hides
  kOpaque,    // `path` is the directory whose lower content it hides
  kMetadata,  // what AUFS left behind: to skip
};

struct LayerPath {
  EntryName kind = EntryName::kPlain;
  std::string path;  // clean, "" is the root
};

// kInvalidArgument for names that leave the root, use the whiteout prefix otherwise, hold a NUL or
// pass the limits.
Result<LayerPath> ParseLayerPath(std::string_view raw);

// "a/b/c" -> {"a/b", "c"}; "c" -> {"", "c"}.
struct PathSplit {
  std::string_view parent;
  std::string_view leaf;
};
PathSplit SplitPath(std::string_view path);

}  // namespace pulga
