#include "images/pax_names.h"

#include <algorithm>

#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kTypeAt = 156;
constexpr size_t kSizeAt = 124;
constexpr size_t kMaxExtensionBytes = 1 << 20;  // as libarchive has it
constexpr std::string_view kExtensions = "xXgLKVA";

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::optional<size_t> ParseOctal(std::string_view field) {
  size_t value = 0;
  for (const char c : field) {
    if (c == ' ' && value == 0) continue;
    if (c < '0' || c > '7') break;
    value = value * 8 + static_cast<size_t>(c - '0');
    if (value > kMaxExtensionBytes) return std::nullopt;
  }
  return value;
}

// "LENGTH KEY=VALUE\n" until the records end. The name of a sparse file beats its path.
void ReadRecords(std::string_view records, PaxNames* names, bool* sparse_name) {
  while (true) {
    const size_t space = records.find(' ');
    if (space == std::string_view::npos) return;
    const auto length = ParseUint(records.substr(0, space), kMaxExtensionBytes);
    if (!length || *length <= space + 1 || *length > records.size()) return;
    const std::string_view record = records.substr(space + 1, *length - space - 2);
    records.remove_prefix(*length);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (key == "linkpath") names->link_path = value;
    if (key == "path" && !*sparse_name) names->path = value;
    if (key == "GNU.sparse.name") {
      names->path = value;
      *sparse_name = true;
    }
  }
}

}  // namespace

PaxNames FindPaxNames(std::string_view headers) {
  PaxNames names;
  bool sparse_name = false;
  while (headers.size() >= kBlock) {
    const char type = headers[kTypeAt];
    if (kExtensions.find(type) == std::string_view::npos) break;
    const auto size = ParseOctal(headers.substr(kSizeAt, 12));
    if (!size || *size > headers.size() - kBlock) break;
    if (type == 'x' || type == 'X') {
      ReadRecords(headers.substr(kBlock, *size), &names, &sparse_name);
    }
    const size_t whole = kBlock + (*size + kBlock - 1) / kBlock * kBlock;
    headers.remove_prefix(std::min(whole, headers.size()));
  }
  if (IsAscii(names.path)) names.path = {};
  if (IsAscii(names.link_path)) names.link_path = {};
  return names;
}

}  // namespace pulga
