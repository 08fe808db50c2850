// The header of a tar's member, the same on every machine and day, for archives that are written as
// they are sent. Pure. Source: POSIX ustar; GNU tar's base-256 sizes.
#pragma once

#include <cstdint>
#include <string>

namespace pulga {

inline constexpr size_t kTarBlock = 512;

struct TarMember {
  std::string name;  // at most 99 bytes
  char type = '0';   // '0' a file, '5' a directory
  uint64_t size = 0;
};

std::string TarHeader(const TarMember& member);
// What follows `size` bytes of content.
std::string TarPadding(uint64_t size);

}  // namespace pulga
