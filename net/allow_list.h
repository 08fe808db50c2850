// What a function with outbound network may reach: a list of entries, each a range of addresses or
// a name, with a protocol and ports. The empty list means the public Internet. Its text form is
// sandbox/network_rule.h; this is what the rules and the router work with. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "net/ipv4.h"

namespace pulga {

inline constexpr size_t kMaxAllowEntries = 64;

enum class IpProtocol : uint8_t { kTcp = 6, kUdp = 17 };

struct AllowEntry {
  std::string name;  // lower case; empty: `range` counts
  Ipv4Range range;
  IpProtocol protocol = IpProtocol::kTcp;
  uint16_t first_port = 0;  // 0 = every port
  uint16_t last_port = 0;

  bool Covers(IpProtocol asked, uint16_t port) const {
    return protocol == asked && (first_port == 0 || (port >= first_port && port <= last_port));
  }
  bool operator==(const AllowEntry&) const = default;
};

}  // namespace pulga
