// Bytes in memory as a stream.
#pragma once

#include <span>
#include <string_view>

#include "images/byte_source.h"

namespace pulga::testing {

class TextSource final : public ByteSource {
 public:
  // `text` outlives this.
  explicit TextSource(std::string_view text) : rest_(text) {}
  Result<size_t> Read(std::span<char> out) override {
    const size_t n = rest_.copy(out.data(), out.size());
    rest_.remove_prefix(n);
    return n;
  }

 private:
  std::string_view rest_;
};

}  // namespace pulga::testing
