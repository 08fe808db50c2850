#include "net/router_wire.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace pulga {
namespace {

AllowWire Pack(const AllowEntry& entry) {
  AllowWire out;
  entry.name.copy(out.name, sizeof out.name - 1);
  out.base = entry.range.base.value;
  out.bits = entry.range.bits;
  out.protocol = static_cast<uint8_t>(entry.protocol);
  out.first_port = entry.first_port;
  out.last_port = entry.last_port;
  return out;
}

std::optional<AllowEntry> Unpack(const AllowWire& wire) {
  AllowEntry out;
  if (wire.bits > 32 || wire.name[sizeof wire.name - 1] != '\0') return std::nullopt;
  out.name = wire.name;
  out.range = {{wire.base}, wire.bits};
  out.protocol = static_cast<IpProtocol>(wire.protocol);
  if (out.protocol != IpProtocol::kTcp && out.protocol != IpProtocol::kUdp) return std::nullopt;
  out.first_port = wire.first_port;
  out.last_port = wire.last_port;
  return out;
}

}  // namespace

std::string EncodeNotice(const RouterNotice& notice) {
  const size_t size = offsetof(RouterNotice, addresses) + notice.count * sizeof(uint32_t);
  return {reinterpret_cast<const char*>(&notice), std::min(size, sizeof notice)};
}

std::optional<RouterNotice> DecodeNotice(std::string_view message) {
  RouterNotice out;
  constexpr size_t kHead = offsetof(RouterNotice, addresses);
  if (message.size() < kHead) return std::nullopt;
  memcpy(static_cast<void*>(&out), message.data(), kHead);
  if (out.count > kMaxHostAddresses || message.size() != kHead + out.count * sizeof(uint32_t)) {
    return std::nullopt;
  }
  memcpy(out.addresses, message.data() + kHead, message.size() - kHead);
  return out;
}

std::string EncodeAdmission(const Holder& function, const std::vector<AllowEntry>& allow) {
  RouterOrder order;
  order.kind = OrderKind::kAdmit;
  order.address = function.address.value;
  order.version = function.version;
  order.entries = static_cast<uint32_t>(allow.size());
  std::string out(reinterpret_cast<const char*>(&order), sizeof order);
  for (const AllowEntry& entry : allow) {
    const AllowWire wire = Pack(entry);
    out.append(reinterpret_cast<const char*>(&wire), sizeof wire);
  }
  return out;
}

std::optional<Admission> DecodeOrder(std::string_view message) {
  Admission out;
  if (message.size() < sizeof out.order) return std::nullopt;
  memcpy(&out.order, message.data(), sizeof out.order);
  message.remove_prefix(sizeof out.order);
  if (out.order.entries > kMaxAllowEntries ||
      message.size() != out.order.entries * sizeof(AllowWire)) {
    return std::nullopt;
  }
  for (uint32_t i = 0; i < out.order.entries; ++i) {
    AllowWire wire;
    memcpy(&wire, message.data() + i * sizeof wire, sizeof wire);
    auto entry = Unpack(wire);
    if (!entry) return std::nullopt;
    out.allow.push_back(std::move(*entry));
  }
  return out;
}

}  // namespace pulga
