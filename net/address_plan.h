// Who gets which address inside the range of outbound networks: the router the first one, each
// attached network namespace one of the others, with an interface and a hardware address made from
// it. Addresses come back to use in the order they were given back. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "base/result.h"
#include "net/ipv4.h"

namespace pulga {

inline constexpr char kDefaultNetworkRange[] = "10.83.0.0/16";
inline constexpr char kRouterBridge[] = "pulga0";
inline constexpr char kFunctionInterface[] = "eth0";
inline constexpr uint16_t kGatewayPort = 8080;
inline constexpr uint16_t kRelayPort = 15001;
inline constexpr uint32_t kMaxNetworkPorts = 4096;
inline constexpr size_t kMaxManagementPorts = 16;  // where the daemon listens for its users

// A range for functions is private (RFC 1918) and between /12 and /24.
Status CheckNetworkRange(const Ipv4Range& range);
Ipv4 RouterAddress(const Ipv4Range& range);

// One attached network namespace, as the router sees it.
struct NetworkPort {
  uint32_t index = 0;
  Ipv4 address;
  std::string interface;  // "p7", on the router's side
  std::array<uint8_t, 6> mac{};
};
NetworkPort PortOf(const Ipv4Range& range, uint32_t index);
std::string FormatMac(const std::array<uint8_t, 6>& mac);

class PortPool {
 public:
  explicit PortPool(const Ipv4Range& range);
  // Nothing when all are in use.
  std::optional<NetworkPort> Take();
  void Give(uint32_t index) { given_back_.push_back(index); }

 private:
  Ipv4Range range_;
  uint32_t fresh_ = 0;  // those from here on were never used
  uint32_t count_;
  std::deque<uint32_t> given_back_;
};

}  // namespace pulga
