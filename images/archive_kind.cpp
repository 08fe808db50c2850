#include "images/archive_kind.h"

#include <algorithm>
#include <string_view>

namespace pulga {
namespace {

using std::string_view_literals::operator""sv;

struct Magic {
  std::string_view bytes;
  ArchiveKind kind;
  const char* name;
};

constexpr Magic kMagics[] = {
    {"\x1f\x8b"sv, ArchiveKind::kGzip, "gzip data inside compressed data"},
    {"\x28\xb5\x2f\xfd"sv, ArchiveKind::kZstd, "zstd data inside compressed data"},
    {"\xfd"
     "7zXZ"sv,
     ArchiveKind::kXz, "xz data"},
    {"BZh"sv, ArchiveKind::kBzip2, "bzip2 data"},
    {"\x04\x22\x4d\x18"sv, ArchiveKind::kLz4, "lz4 data"},
    {"PK\x03\x04"sv, ArchiveKind::kZip, "a zip file"},
    {"7z\xbc\xaf\x27\x1c"sv, ArchiveKind::k7z, "a 7z file"},
    {"Rar!"sv, ArchiveKind::kRar, "a rar file"},
    {"LZIP"sv, ArchiveKind::kLzip, "lzip data"},
    {"\x89LZO\0\r\n\x1a\n"sv, ArchiveKind::kLzop, "lzop data"},
    {"LRZI"sv, ArchiveKind::kLrzip, "lrzip data"},
    {"GRZipII\0"sv, ArchiveKind::kGrzip, "grzip data"},
    {"\x1f\x9d"sv, ArchiveKind::kCompress, "compress (.Z) data"},
    {"\xed\xab\xee\xdb"sv, ArchiveKind::kRpm, "an rpm package"},
    {"07070"sv, ArchiveKind::kCpio, "a cpio archive"},
    {"\x7f"
     "ELF"sv,
     ArchiveKind::kElf, "a program"},
};

// The header's sum with its own field as spaces, in octal; both signs exist in the wild.
bool IsTarHeader(std::string_view block) {
  if (block.size() < 512) return false;
  long sum_unsigned = 0;
  long sum_signed = 0;
  for (size_t i = 0; i < 512; ++i) {
    const char c = i >= 148 && i < 156 ? ' ' : block[i];
    sum_unsigned += static_cast<unsigned char>(c);
    sum_signed += static_cast<signed char>(c);
  }
  long stored = 0;
  for (const char c : block.substr(148, 8)) {
    if (c == ' ' && stored == 0) continue;
    if (c < '0' || c > '7') break;
    stored = stored * 8 + (c - '0');
  }
  return stored == sum_unsigned || stored == sum_signed;
}

bool IsText(std::string_view head) {
  return !head.empty() && std::all_of(head.begin(), head.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 || c == '\n' || c == '\r' || c == '\t';
  });
}

}  // namespace

ArchiveKind DetectArchive(std::string_view head) {
  if (head.empty()) return ArchiveKind::kEmpty;
  if (IsTarHeader(head)) return ArchiveKind::kTar;  // also one whose first name begins like that
  for (const Magic& magic : kMagics) {
    if (head.starts_with(magic.bytes)) return magic.kind;
  }
  return IsText(head) ? ArchiveKind::kText : ArchiveKind::kOther;
}

std::string_view ForeignFormat(std::string_view head) {
  for (const Magic& magic : kMagics) {
    const bool read = magic.kind == ArchiveKind::kGzip || magic.kind == ArchiveKind::kZstd;
    if (!read && head.starts_with(magic.bytes) && !IsTarHeader(head)) return magic.name;
  }
  return {};
}

std::string NotAnArchive(ArchiveKind kind, size_t head_size) {
  std::string found = "this is no tar archive";
  if (kind == ArchiveKind::kEmpty) found = "the archive is empty";
  if (kind == ArchiveKind::kText) found = "this is text";
  if (kind == ArchiveKind::kOther && head_size < 512) found = "this is too short for an archive";
  for (const Magic& magic : kMagics) {
    if (magic.kind == kind) found = std::string("this is ") + magic.name;
  }
  return found + "; what `docker save` writes or an OCI archive is expected, plain, gzip or zstd";
}

}  // namespace pulga
