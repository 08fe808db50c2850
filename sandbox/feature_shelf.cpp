#include "sandbox/feature_shelf.h"

#include <algorithm>
#include <optional>

namespace pulga {
namespace {

// A list that differs in more of its places than one in so many is one of its own.
constexpr size_t kAlike = 4;

bool Same(const Feature& a, const Feature& b) {
  return a.name == b.name && a.state == b.state && a.detail == b.detail && a.advice == b.advice;
}

using Differences = std::vector<std::pair<size_t, Feature>>;

std::optional<Differences> Compare(const std::vector<Feature>& shared,
                                   const std::vector<Feature>& features) {
  if (shared.size() != features.size()) return std::nullopt;
  Differences own;
  for (size_t i = 0; i < features.size(); ++i) {
    if (Same(shared[i], features[i])) continue;
    if (own.size() == features.size() / kAlike) return std::nullopt;
    own.emplace_back(i, features[i]);
  }
  own.shrink_to_fit();
  return own;
}

}  // namespace

FeatureShelf::List FeatureShelf::Keep(const std::vector<Feature>& features) {
  if (features.empty()) return {};
  std::erase_if(shared_, [](const auto& list) { return list.expired(); });
  List best;
  for (const auto& weak : shared_) {
    auto shared = weak.lock();
    auto own = Compare(*shared, features);
    if (!own || (best.shared != nullptr && own->size() >= best.own.size())) continue;
    best = {std::move(shared), std::move(*own)};
  }
  if (best.shared != nullptr) return best;
  best.shared = std::make_shared<const std::vector<Feature>>(features);
  if (shared_.size() == kMost) shared_.erase(shared_.begin());
  shared_.push_back(best.shared);
  return best;
}

std::vector<Feature> Unpacked(const FeatureShelf::List& list) {
  if (list.shared == nullptr) return {};
  std::vector<Feature> features = *list.shared;
  for (const auto& [place, feature] : list.own) features[place] = feature;
  return features;
}

}  // namespace pulga
