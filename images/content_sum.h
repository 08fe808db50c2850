// A fast 64-bit sum over a file's bytes, to tell which file of a layer changed. Not a digest: that
// nobody tampered is what the layer's diff-id proves. Part of the format of layer records.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace pulga {

class ContentSum {
 public:
  void Update(std::string_view bytes);
  uint64_t Finish() const;

 private:
  void Mix(const char* block);
  std::array<uint64_t, 4> lanes_ = {0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0,
                                    0x082efa98ec4e6c89};
  std::array<char, 32> held_ = {};
  uint64_t size_ = 0;
};

}  // namespace pulga
