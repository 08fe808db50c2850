// FeatureShelf: lists of features of which equal entries are kept once: the reports of a thousand
// versions say nearly the same, and each is some ten KiB by itself. Loop thread. Owns nothing that
// no list holds any more, but for a few bytes that the next lists clear away.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <vector>

#include "sandbox/kernel_features.h"

namespace pulga {

class FeatureShelf {
 public:
  using List = std::vector<std::shared_ptr<const Feature>>;
  List Keep(const std::vector<Feature>& features);
  size_t size() const { return kept_.size(); }  // those of no list any more may still be counted

 private:
  std::shared_ptr<const Feature> Keep(const Feature& feature);
  void Clear();

  std::multimap<size_t, std::weak_ptr<const Feature>> kept_;  // by a hash of all they say
  size_t clear_at_ = 64;
};

std::vector<Feature> Unpacked(const FeatureShelf::List& list);

}  // namespace pulga
