// The names in the PAX headers before one member, byte for byte: libarchive takes them for UTF-8
// text and composes what was decomposed, but a file's name is what the layer says it is. Pure.
#pragma once

#include <optional>
#include <string_view>

namespace pulga {

struct PaxNames {
  std::string_view path;       // empty: none given, or plain ASCII
  std::string_view link_path;  // likewise
};

// `headers` begins with the first header of a member and goes to its last one at least. What is
// damaged ends the search: the reader of the archive complains about it.
PaxNames FindPaxNames(std::string_view headers);

}  // namespace pulga
