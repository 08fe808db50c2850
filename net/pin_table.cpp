#include "net/pin_table.h"

#include <algorithm>
#include <iterator>

namespace pulga {

bool PinTable::HasRoom(uint32_t entry) const {
  const auto first = pins_.lower_bound({entry, {0}});
  const auto last = pins_.upper_bound({entry, {~uint32_t{0}}});
  return pins_.size() < kMaxPins &&
         static_cast<size_t>(std::distance(first, last)) < kMaxPinsPerEntry;
}

bool PinTable::Set(uint32_t entry, Ipv4 address, TimePoint until, TimePoint now) {
  std::erase_if(pins_, [now](const auto& pin) { return pin.second.until <= now; });
  const auto found = pins_.find({entry, address});
  if (found == pins_.end() && !HasRoom(entry)) return false;
  pins_[{entry, address}].until = until;
  return true;
}

void PinTable::Opened(uint32_t entry, Ipv4 address, TimePoint until) {
  Times& pin = pins_[{entry, address}];
  pin.opened = std::max(pin.opened, until);
  pin.until = std::max(pin.until, until);
}

void PinTable::Failed(uint32_t entry, Ipv4 address, TimePoint until) {
  const auto found = pins_.find({entry, address});
  if (found == pins_.end() || found->second.until != until) return;
  found->second.until = found->second.opened;
  if (found->second.until == TimePoint{}) pins_.erase(found);
}

bool PinTable::IsSet(uint32_t entry, Ipv4 address, TimePoint at) const {
  const auto found = pins_.find({entry, address});
  return found != pins_.end() && found->second.until > at;
}

}  // namespace pulga
