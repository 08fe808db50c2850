#include "net/address_plan.h"

#include <algorithm>
#include <cstdio>

namespace pulga {
namespace {

constexpr uint32_t kFirstPort = 16;  // the addresses below are the router's
constexpr Ipv4Range kPrivate[] = {{{0x0A000000}, 8}, {{0xAC100000}, 12}, {{0xC0A80000}, 16}};

}  // namespace

Status CheckNetworkRange(const Ipv4Range& range) {
  const bool is_private =
      std::any_of(std::begin(kPrivate), std::end(kPrivate), [&](const Ipv4Range& within) {
        return within.Contains(range.base) && range.bits >= within.bits;
      });
  if (is_private && range.bits >= 12 && range.bits <= 24 &&
      (range.base.value & ~range.mask()) == 0) {
    return OkStatus();
  }
  return Error{Code::kInvalidArgument, 0,
               FormatIpv4Range(range) +
                   " is not a private range (in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16) of "
                   "/12 to /24"};
}

Ipv4 RouterAddress(const Ipv4Range& range) { return {range.base.value + 1}; }

NetworkPort PortOf(const Ipv4Range& range, uint32_t index) {
  NetworkPort port;
  port.index = index;
  port.address = {range.base.value + kFirstPort + index};
  port.interface = "p" + std::to_string(index);
  // 02: locally administered, unicast.
  port.mac = {0x02, 0x50};
  for (size_t i = 0; i < 4; ++i) {
    port.mac[2 + i] = static_cast<uint8_t>(port.address.value >> (24 - 8 * i));
  }
  return port;
}

std::string FormatMac(const std::array<uint8_t, 6>& mac) {
  char text[18];
  snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
           mac[4], mac[5]);
  return text;
}

PortPool::PortPool(const Ipv4Range& range)
    : range_(range), count_(std::min(kMaxNetworkPorts, ~range.mask() - kFirstPort)) {}

std::optional<NetworkPort> PortPool::Take() {
  if (fresh_ < count_) return PortOf(range_, fresh_++);
  if (given_back_.empty()) return std::nullopt;
  const uint32_t index = given_back_.front();
  given_back_.pop_front();
  return PortOf(range_, index);
}

}  // namespace pulga
