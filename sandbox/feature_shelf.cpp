#include "sandbox/feature_shelf.h"

#include <algorithm>
#include <functional>
#include <string_view>

namespace pulga {
namespace {

size_t HashOf(const Feature& feature) {
  size_t hash = static_cast<size_t>(feature.state);
  for (const std::string_view text :
       {std::string_view(feature.name), std::string_view(feature.detail),
        std::string_view(feature.advice)}) {
    hash = hash * 31 + std::hash<std::string_view>()(text);
  }
  return hash;
}

bool Same(const Feature& a, const Feature& b) {
  return a.name == b.name && a.state == b.state && a.detail == b.detail && a.advice == b.advice;
}

}  // namespace

std::shared_ptr<const Feature> FeatureShelf::Keep(const Feature& feature) {
  const size_t hash = HashOf(feature);
  const auto [first, last] = kept_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    std::shared_ptr<const Feature> kept = it->second.lock();
    if (kept != nullptr && Same(*kept, feature)) return kept;
  }
  // Not by make_shared: the weak pointer would keep the whole block.
  std::shared_ptr<const Feature> kept(new Feature(feature));
  kept_.emplace(hash, kept);
  return kept;
}

FeatureShelf::List FeatureShelf::Keep(const std::vector<Feature>& features) {
  List list;
  list.reserve(features.size());
  for (const Feature& feature : features) list.push_back(Keep(feature));
  if (kept_.size() >= clear_at_) Clear();
  return list;
}

void FeatureShelf::Clear() {
  std::erase_if(kept_, [](const auto& entry) { return entry.second.expired(); });
  clear_at_ = std::max<size_t>(64, 2 * kept_.size());
}

std::vector<Feature> Unpacked(const FeatureShelf::List& list) {
  std::vector<Feature> features;
  features.reserve(list.size());
  for (const auto& feature : list) features.push_back(*feature);
  return features;
}

}  // namespace pulga
