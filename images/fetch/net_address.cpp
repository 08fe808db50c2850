#include "images/fetch/net_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/text.h"

namespace pulga {
namespace {

struct Range4 {
  uint32_t base;
  int bits;
  AddressKind kind;
};

constexpr Range4 kRanges4[] = {
    {0x00000000, 8, AddressKind::kLoopback},  // "this host"
    {0x7F000000, 8, AddressKind::kLoopback}, {0x0A000000, 8, AddressKind::kPrivate},
    {0xAC100000, 12, AddressKind::kPrivate}, {0xC0A80000, 16, AddressKind::kPrivate},
    {0x64400000, 10, AddressKind::kPrivate}, {0xA9FE0000, 16, AddressKind::kNever},
    {0xC0000000, 24, AddressKind::kNever},   {0xC0000200, 24, AddressKind::kNever},
    {0xC6120000, 15, AddressKind::kPrivate}, {0xC6336400, 24, AddressKind::kNever},
    {0xCB007100, 24, AddressKind::kNever},   {0xE0000000, 4, AddressKind::kNever},
    {0xF0000000, 4, AddressKind::kNever},
};

AddressKind KindOf4(uint32_t address) {
  for (const Range4& range : kRanges4) {
    if ((address ^ range.base) >> (32 - range.bits) == 0) return range.kind;
  }
  return AddressKind::kPublic;
}

uint32_t At(const uint8_t* bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | bytes[i];
  return value;
}

AddressKind KindOf6(const uint8_t* a) {
  constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  constexpr uint8_t kNat64[12] = {0, 0x64, 0xff, 0x9b};
  if (memcmp(a, kMapped, 12) == 0 || memcmp(a, kNat64, 12) == 0) return KindOf4(At(a + 12));
  if (std::all_of(a, a + 12, [](uint8_t byte) { return byte == 0; })) {
    const uint32_t low = At(a + 12);
    return low <= 1 ? AddressKind::kLoopback : KindOf4(low);
  }
  if (a[0] == 0x20 && a[1] == 0x02) return KindOf4(At(a + 2));  // 6to4
  if ((a[0] & 0xfe) == 0xfc) return AddressKind::kPrivate;
  if (a[0] == 0xfe && (a[1] & 0xc0) == 0xc0) return AddressKind::kPrivate;  // old site-local
  // Global unicast is 2000::/3; everything else is link-local, multicast or reserved.
  return (a[0] & 0xe0) == 0x20 ? AddressKind::kPublic : AddressKind::kNever;
}

using Bytes16 = std::array<uint8_t, 16>;

constexpr int kMappedBits = 96;

Bytes16 MappedFrom(const uint8_t* four) {
  Bytes16 bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  memcpy(bytes.data() + 12, four, 4);
  return bytes;
}

// Nothing for what is no IP address.
std::optional<Bytes16> BytesOf(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in v4;
    memcpy(&v4, &address, sizeof v4);
    return MappedFrom(reinterpret_cast<const uint8_t*>(&v4.sin_addr));
  }
  if (address.sa_family != AF_INET6) return std::nullopt;
  sockaddr_in6 v6;
  memcpy(&v6, &address, sizeof v6);
  Bytes16 bytes;
  memcpy(bytes.data(), &v6.sin6_addr, bytes.size());
  return bytes;
}

bool BitAt(const Bytes16& bytes, int bit) { return (bytes[bit / 8] >> (7 - bit % 8) & 1) != 0; }

}  // namespace

AddressKind KindOfAddress(const sockaddr& address) {
  const auto bytes = BytesOf(address);
  return bytes ? KindOf6(bytes->data()) : AddressKind::kNever;
}

bool NetworkPrefix::Contains(const sockaddr& address) const {
  const auto bytes = BytesOf(address);
  for (int bit = 0; bytes && bit < bits; ++bit) {
    if (BitAt(*bytes, bit) != BitAt(base, bit)) return false;
  }
  return bytes.has_value();
}

std::optional<NetworkPrefix> ParseNetworkPrefix(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  NetworkPrefix prefix;
  uint8_t four[4];
  const bool is_v4 = inet_pton(AF_INET, address.c_str(), four) == 1;
  if (is_v4) prefix.base = MappedFrom(four);
  if (!is_v4 && inet_pton(AF_INET6, address.c_str(), prefix.base.data()) != 1) return std::nullopt;
  if (slash != std::string_view::npos) {
    const auto bits = ParseUint(text.substr(slash + 1), is_v4 ? 32 : 128);
    if (!bits) return std::nullopt;
    prefix.bits = static_cast<int>(*bits) + (is_v4 ? kMappedBits : 0);
  }
  for (int bit = prefix.bits; bit < 128; ++bit) {
    if (BitAt(prefix.base, bit)) return std::nullopt;
  }
  return prefix;
}

NetworkPrefix PrefixOf(const sockaddr& address) {
  return {BytesOf(address).value_or(Bytes16{}), 128};
}

NetworkPrefix Widened(NetworkPrefix prefix, int bits) {
  prefix.bits = std::min(prefix.bits, bits);
  for (int bit = prefix.bits; bit < 128; ++bit) {
    uint8_t& byte = prefix.base[static_cast<size_t>(bit / 8)];
    byte = static_cast<uint8_t>(byte & ~(0x80U >> (bit % 8)));
  }
  return prefix;
}

bool Reach::Covers(const sockaddr& address) const {
  const auto holds = [&](const NetworkPrefix& prefix) { return prefix.Contains(address); };
  if (std::any_of(allowed.begin(), allowed.end(), holds)) return true;
  if (std::any_of(refused.begin(), refused.end(), holds)) return false;
  return KindOfAddress(address) <= most_private;
}

}  // namespace pulga
