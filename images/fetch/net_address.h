// What kind of network an address belongs to, so that a stranger's answer (a redirect, a token
// server) or wish (a callback's URL) cannot turn the fetcher against its own host or its
// neighbours. Pure. Source: IANA special-purpose address registries; RFC 6890.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace pulga {

// In order of trust needed: each may lead to itself and to those before it.
enum class AddressKind : uint8_t {
  kPublic,
  kPrivate,   // RFC 1918, ULA, shared address space (CGNAT)
  kLoopback,  // the board itself, unspecified addresses too
  kNever,     // link-local (cloud metadata), multicast, reserved, no IP at all
};

// IPv4 inside IPv6 (mapped, NAT64, 6to4) counts as what it holds.
AddressKind KindOfAddress(const sockaddr& address);

// All addresses that begin with the same bits. IPv4 as IPv4-mapped IPv6: 0.0.0.0/0 has 96 bits.
struct NetworkPrefix {
  std::array<uint8_t, 16> base = {};
  int bits = 128;
  bool operator==(const NetworkPrefix&) const = default;
  bool Contains(const sockaddr& address) const;  // a mapped address is its IPv4 address
};
// "10.0.0.0/8", "fd00::/8", or one address; bits behind the prefix must be 0.
std::optional<NetworkPrefix> ParseNetworkPrefix(std::string_view text);
NetworkPrefix PrefixOf(const sockaddr& address);        // of this one address; IPv4 or IPv6
NetworkPrefix Widened(NetworkPrefix prefix, int bits);  // of its first bits, at most those it has

inline constexpr size_t kMaxNetworks = 256;  // in one Reach

// Where a request may lead, by the address that is connected to.
struct Reach {
  AddressKind most_private = AddressKind::kLoopback;
  std::vector<NetworkPrefix> refused;  // whatever their kind: the board's own
  std::vector<NetworkPrefix> allowed;  // whatever else is said

  bool Covers(const sockaddr& address) const;
};

}  // namespace pulga
