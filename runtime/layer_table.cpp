#include "runtime/layer_table.h"

#include <utility>

namespace pulga {

std::optional<LayerRecord> LayerTable::Find(Holder holder, const LayerId& id) {
  const auto it = entries_.find(id);
  if (it != entries_.end() && (it->second.maker || it->second.leaving)) return std::nullopt;
  auto layer = catalog_.FindLayer(id);
  if (!layer && it != entries_.end()) layer = it->second.layer;
  if (!layer) return std::nullopt;
  Entry& entry = entries_[id];
  entry.holders.insert(holder);
  entry.layer = layer;
  return layer;
}

void LayerTable::FindOrMake(Holder holder, const LayerId& id, Found found) {
  Entry& entry = entries_[id];
  if (entry.maker || entry.leaving) {
    if (abandoned_.contains(holder)) return found(std::nullopt);
    entry.waiting.push_back({holder, std::move(found)});
    return;
  }
  auto layer = Find(holder, id);
  if (!layer) entry.maker = holder;
  found(std::move(layer));
}

void LayerTable::Made(Holder holder, const LayerId& id, std::optional<LayerRecord> layer) {
  Entry& entry = entries_[id];
  if (entry.maker != holder) return;
  entry.maker.reset();
  if (layer) {
    entry.holders.insert(holder);
    entry.layer = std::move(layer);
  }
  Serve(id);
}

// Until one of those who wait has to make it.
void LayerTable::Serve(const LayerId& id) {
  while (true) {
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    Entry& entry = it->second;
    if (entry.maker || entry.leaving) return;
    if (entry.waiting.empty()) {
      if (entry.holders.empty()) entries_.erase(it);
      return;
    }
    Waiter next = std::move(entry.waiting.front());
    entry.waiting.pop_front();
    FindOrMake(next.holder, id, std::move(next.found));
  }
}

void LayerTable::Abandon(Holder holder) {
  abandoned_.insert(holder);
  std::vector<Found> told;
  for (auto& [id, entry] : entries_) {
    for (Waiter& waiter : entry.waiting) {
      if (waiter.holder == holder) told.push_back(std::move(waiter.found));
    }
    std::erase_if(entry.waiting, [holder](const Waiter& one) { return one.holder == holder; });
  }
  for (const Found& found : told) found(std::nullopt);
}

std::vector<LayerId> LayerTable::Release(Holder holder) {
  abandoned_.erase(holder);
  std::vector<LayerId> garbage;
  std::vector<LayerId> mine;
  for (const auto& [id, entry] : entries_) {
    if (entry.maker == holder || entry.holders.contains(holder)) mine.push_back(id);
  }
  for (const LayerId& id : mine) {
    Made(holder, id, std::nullopt);  // it never said so
    const auto it = entries_.find(id);
    if (it == entries_.end()) continue;
    Entry& entry = it->second;
    entry.holders.erase(holder);
    if (!entry.holders.empty() || entry.maker || entry.leaving) continue;
    if (entry.layer && !catalog_.FindLayer(id)) garbage.push_back(id);
    entries_.erase(it);
  }
  return garbage;
}

bool LayerTable::BeginRemoval(const LayerId& id) {
  Entry& entry = entries_[id];
  const bool free = entry.holders.empty() && !entry.maker && !entry.leaving;
  if (free) {
    entry.leaving = true;
    entry.layer.reset();
  }
  return free;
}

void LayerTable::EndRemoval(const LayerId& id) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  it->second.leaving = false;
  it->second.layer.reset();
  Serve(id);
}

std::set<LayerId> LayerTable::Busy() const {
  std::set<LayerId> out;
  for (const auto& [id, entry] : entries_) out.insert(id);
  return out;
}

}  // namespace pulga
