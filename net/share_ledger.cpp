#include "net/share_ledger.h"

namespace pulga {
namespace {

template <typename Key>
size_t CountOf(const std::map<Key, size_t>& counts, const Key& key) {
  const auto found = counts.find(key);
  return found == counts.end() ? 0 : found->second;
}

template <typename Key>
void OneLess(std::map<Key, size_t>& counts, const Key& key) {
  const auto found = counts.find(key);
  if (found != counts.end() && --found->second == 0) counts.erase(found);
}

}  // namespace

bool ShareLedger::HasRoom(const Holder& holder) const {
  return all_ < limits_.all && CountOf(versions_, holder.version) < limits_.version &&
         CountOf(addresses_, holder.address) < limits_.address;
}

void ShareLedger::Take(const Holder& holder) {
  ++all_;
  ++versions_[holder.version];
  ++addresses_[holder.address];
}

void ShareLedger::Give(const Holder& holder) {
  --all_;
  OneLess(versions_, holder.version);
  OneLess(addresses_, holder.address);
}

size_t ShareLedger::HeldBy(uint64_t version) const { return CountOf(versions_, version); }

}  // namespace pulga
