// Numbers as packets hold them. Pure.
#pragma once

#include <cstdint>
#include <string>

namespace pulga {

inline void Put16(std::string& out, uint32_t value) {
  out += static_cast<char>(value >> 8 & 255);
  out += static_cast<char>(value & 255);
}

inline void Put32(std::string& out, uint32_t value) {
  Put16(out, value >> 16);
  Put16(out, value & 0xffff);
}

}  // namespace pulga
