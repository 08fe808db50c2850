#include "net/egress_policy.h"

#include <algorithm>
#include <utility>

namespace pulga {

void EgressPolicy::SetUp(const Ipv4Range& functions, std::set<uint16_t> management_ports) {
  range_ = functions;
  management_ports_ = std::move(management_ports);
}

void EgressPolicy::Admit(const Holder& function, std::vector<AllowEntry> allow) {
  functions_[function.address] = Function{function.version, std::move(allow), {}};
}

Holder EgressPolicy::HolderAt(Ipv4 function) const {
  const auto found = functions_.find(function);
  return {function, found == functions_.end() ? 0 : found->second.version};
}

bool EgressPolicy::MayResolve(Ipv4 function, std::string_view name) const {
  const auto found = functions_.find(function);
  if (found == functions_.end()) return false;
  return found->second.allow.empty() || !EntriesNaming(function, name).empty();
}

std::vector<uint32_t> EgressPolicy::EntriesNaming(Ipv4 function, std::string_view name) const {
  std::vector<uint32_t> out;
  const auto found = functions_.find(function);
  if (found == functions_.end()) return out;
  const auto& allow = found->second.allow;
  for (uint32_t i = 0; i < allow.size(); ++i) {
    if (!allow[i].name.empty() && allow[i].name == name) out.push_back(i);
  }
  return out;
}

bool EgressPolicy::Pin(const NewPin& pin, TimePoint now) {
  const auto found = functions_.find(pin.function);
  if (found == functions_.end() || !IsPublic(pin.address)) return false;
  return found->second.pins.Set(pin.entry, pin.address, pin.until, now);
}

bool EgressPolicy::IsPinned(Ipv4 function, uint32_t entry, Ipv4 address, TimePoint at) const {
  const auto found = functions_.find(function);
  return found != functions_.end() && found->second.pins.IsSet(entry, address, at);
}

bool EgressPolicy::MayConnect(Ipv4 function, const Destination& to, RouteKind route,
                              TimePoint now) const {
  const auto found = functions_.find(function);
  if (found == functions_.end() || route == RouteKind::kNone) return false;
  if (IsNeverReachable(to.address) || range_.Contains(to.address)) return false;
  if (route == RouteKind::kHost && management_ports_.contains(to.port)) return false;
  const auto& allow = found->second.allow;
  // Whoever has not been named by its address must be out there.
  const bool is_outside = IsPublic(to.address) && route == RouteKind::kFar;
  if (allow.empty()) return is_outside;
  for (uint32_t i = 0; i < allow.size(); ++i) {
    if (!allow[i].Covers(to.protocol, to.port)) continue;
    if (allow[i].name.empty() && allow[i].range.Contains(to.address)) return true;
    if (!allow[i].name.empty() && is_outside && IsPinned(function, i, to.address, now)) return true;
  }
  return false;
}

}  // namespace pulga
