// An IPv4 datagram made by hand, for answers in the name of whom a function wrote to. Pure.
// Source: RFC 768, RFC 791; raw(7).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "net/ipv4.h"

namespace pulga {

struct UdpEnd {
  Ipv4 address;
  uint16_t port = 0;
  auto operator<=>(const UdpEnd&) const = default;
};

inline constexpr size_t kMaxUdpPayload = 65507;

// Header checksum and id are the kernel's (0 here); the UDP checksum is set.
std::string MakeUdpPacket(const UdpEnd& from, const UdpEnd& to, std::string_view payload);

}  // namespace pulga
