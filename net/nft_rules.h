// The rules inside the router's network namespace, as text for libnftables. Everything is in tables
// of our own. A table of family bridge lets a port send only as itself; one of family inet lets
// nothing through (nothing is ever forwarded): what a function may reach is handed to the relay by
// tproxy, all else is refused at once. Pure: values come from parsed types, so no text can break
// out of its place.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "net/address_plan.h"
#include "net/allow_list.h"

namespace pulga {

inline constexpr uint32_t kRelayMark = 1;
inline constexpr uint32_t kRelayTable = 100;  // of routes: marked packets are for the relay

struct NetworkPlan {
  Ipv4Range range;
  // On the host's own addresses no list opens them. At most kMaxManagementPorts, none of them 0.
  std::set<uint16_t> management_ports;
};

std::string BaseRules(const NetworkPlan& plan);
std::string AttachRules(const NetworkPort& port, const std::vector<AllowEntry>& allow);
// Undoes what AttachRules did with the same arguments, all of it or none; for the second time, too.
std::string DetachRules(const NetworkPort& port, const std::vector<AllowEntry>& allow);

// An address of the name that entry number `entry` of the port's list names, open for a while.
struct Pin {
  uint32_t index = 0;  // of the NetworkPort
  uint32_t entry = 0;
  Ipv4 address;
  uint32_t seconds = 0;
};
std::string PinRules(const Pin& pin);
// Those the host has now; what was there before is forgotten.
std::string HostAddressRules(const std::vector<Ipv4>& addresses);

}  // namespace pulga
