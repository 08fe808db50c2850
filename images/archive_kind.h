// What an upload is, by its first bytes: so that a wrong file gets a right answer at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pulga {

enum class ArchiveKind {
  kTar,
  kGzip,
  kZstd,
  kEmpty,
  kXz,
  kBzip2,
  kLz4,
  kZip,
  k7z,
  kRar,
  kElf,
  kText,
  kOther,
  kLzip,
  kLzop,
  kLrzip,
  kGrzip,
  kCompress,
  kRpm,
  kCpio
};

// By its first 512 bytes, or all of it when it is shorter.
ArchiveKind DetectArchive(std::string_view head);
// "xz data" and the like for what begins with the mark of a format that is never read; else empty.
std::string_view ForeignFormat(std::string_view head);
// For people: what came and what was expected.
std::string NotAnArchive(ArchiveKind kind, size_t head_size);

}  // namespace pulga
