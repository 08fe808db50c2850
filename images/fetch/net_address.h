// What kind of network an address belongs to, so that a stranger's answer (a redirect, a token
// server, later a callback's URL) cannot turn the fetcher against its own host or its neighbours.
// Pure. Source: IANA special-purpose address registries; RFC 6890.
#pragma once

#include <sys/socket.h>

#include <cstdint>

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

}  // namespace pulga
