#include "images/tar_member.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace pulga {
namespace {

constexpr uint64_t kOctalLimit = uint64_t{1} << 33;  // eleven digits

}  // namespace

std::string TarHeader(const TarMember& member) {
  std::array<char, kTarBlock> header = {};
  const auto put = [&header](size_t at, std::string_view text) {
    memcpy(header.data() + at, text.data(), text.size());
  };
  put(0, member.name);
  put(100, member.type == '5' ? "0000755" : "0000644");
  put(108, "0000000");
  put(116, "0000000");
  char size[16];
  if (member.size < kOctalLimit) {
    snprintf(size, sizeof size, "%011llo", static_cast<unsigned long long>(member.size));
    put(124, size);
  } else {  // as GNU tar does
    header[124] = static_cast<char>(0x80);
    for (size_t i = 0; i < 8; ++i) {
      header[135 - i] = static_cast<char>(static_cast<unsigned char>(member.size >> (8 * i)));
    }
  }
  put(136, "00000000000");
  put(148, "        ");
  header[156] = member.type;
  put(257, "ustar");
  put(263, "00");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  char checksum[16];
  snprintf(checksum, sizeof checksum, "%06o", sum);
  put(148, std::string_view(checksum, 7));
  return {header.data(), header.size()};
}

std::string TarPadding(uint64_t size) {
  return std::string((kTarBlock - size % kTarBlock) % kTarBlock, '\0');
}

}  // namespace pulga
