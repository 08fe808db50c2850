// What an upload is, by its first bytes: so that a wrong file gets a right answer at once.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

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
  kOther
};

Result<ArchiveKind> DetectArchive(int fd, uint64_t size);
// For people: what came and what was expected.
std::string NotAnArchive(ArchiveKind kind, uint64_t size);

}  // namespace pulga
