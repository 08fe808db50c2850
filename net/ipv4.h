// IPv4 addresses and ranges, and what kind of place each one is. Functions get IPv4 only
// (docs/network.md says why). Pure. Source: IANA IPv4 special-purpose address registry.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pulga {

struct Ipv4 {
  uint32_t value = 0;  // host byte order
  auto operator<=>(const Ipv4&) const = default;
};

struct Ipv4Range {
  Ipv4 base;
  uint8_t bits = 32;
  auto operator<=>(const Ipv4Range&) const = default;

  uint32_t mask() const { return bits == 0 ? 0 : ~uint32_t{0} << (32 - bits); }
  bool Contains(Ipv4 address) const { return ((address.value ^ base.value) & mask()) == 0; }
  bool Overlaps(const Ipv4Range& other) const {
    return Contains(other.base) || other.Contains(base);
  }
};

// Four decimal numbers without leading zeros, nothing else.
std::optional<Ipv4> ParseIpv4(std::string_view text);
// "10.0.0.0/8", or an address alone (/32). Bits outside the mask must be 0.
std::optional<Ipv4Range> ParseIpv4Range(std::string_view text);
std::string FormatIpv4(Ipv4 address);
std::string FormatIpv4Range(const Ipv4Range& range);  // always with /BITS

// What a function with an empty allow-list may reach, other walls permitting. Not public: private
// (RFC 1918), shared (CGNAT), link-local (cloud metadata), loopback, multicast, reserved ranges.
bool IsPublic(Ipv4 address);
// Not even an allow-list opens these: loopback, "this network", multicast and above.
bool IsNeverReachable(Ipv4 address);
bool IsNeverReachable(const Ipv4Range& range);  // all of it

}  // namespace pulga
