// Messages between the launcher and the router (pulga-router): fixed structs over a seqpacket pair.
// The launcher tells who is attached and what each may reach; the router tells which address of a
// name to open, and which addresses the host has. The launcher checks what it is told against what
// it knows; a router that talks nonsense is replaced. Before it ends of itself the router says why,
// as net_job.h has it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/address_plan.h"
#include "net/allow_list.h"
#include "net/share_ledger.h"

namespace pulga {

// A host with more gets no outbound network: one that is left out would be open.
inline constexpr uint32_t kMaxHostAddresses = 1024;
// The descriptors pulga-router starts with.
inline constexpr int kRouterChannelFd = 3;
inline constexpr int kRouterFirstSocketFd = 4;  // RouterFd::kTcpRelay and on, without the gateway

enum class OrderKind : uint32_t {
  kSetUp = 1,   // range and management ports; the first one
  kAdmit = 2,   // a function at `address`, with its entries
  kForget = 3,  // the function at `address` is gone
  kPinned = 4,  // answers kPin number `request`
};

// Followed by `entries` AllowWire.
struct RouterOrder {
  OrderKind kind = OrderKind::kForget;
  uint32_t address = 0;
  uint32_t bits = 0;                                    // kSetUp: of the range
  uint16_t management_ports[kMaxManagementPorts] = {};  // kSetUp; 0: no port
  uint32_t request = 0;                                 // kPinned
  uint32_t ok = 0;                                      // kPinned
  uint32_t entries = 0;                                 // kAdmit
  uint64_t version = 0;                                 // kAdmit: of which function, for shares
};

struct AllowWire {
  char name[256] = {};
  uint32_t base = 0;
  uint16_t first_port = 0;
  uint16_t last_port = 0;
  uint8_t bits = 0;
  uint8_t protocol = 0;
};
inline constexpr size_t kMaxOrderBytes = sizeof(RouterOrder) + kMaxAllowEntries * sizeof(AllowWire);

enum class NoticeKind : uint32_t {
  kPin = 1,
  kHostAddresses = 2,
  kRefused = 3,  // so often, because the function had its share
};

struct RouterNotice {
  NoticeKind kind = NoticeKind::kPin;
  uint32_t request = 0;
  uint32_t function = 0;  // kPin, kRefused: its address
  uint32_t entry = 0;     // kPin: of its list
  uint32_t address = 0;   // kPin: to open
  uint32_t seconds = 0;   // kPin
  uint32_t refused = 0;   // kRefused
  uint32_t count = 0;     // kHostAddresses: of what follows
  uint32_t addresses[kMaxHostAddresses] = {};
};

// Without the addresses that are not used.
std::string EncodeNotice(const RouterNotice& notice);
// Nothing when it is none, of whatever kind.
std::optional<RouterNotice> DecodeNotice(std::string_view message);

std::string EncodeAdmission(const Holder& function, const std::vector<AllowEntry>& allow);
struct Admission {
  RouterOrder order;
  std::vector<AllowEntry> allow;
};
// Nothing when the message is no order, of whatever kind.
std::optional<Admission> DecodeOrder(std::string_view message);

}  // namespace pulga
