// FeatureShelf: many lists of features in little memory: the reports of a thousand versions say the
// same but for a word or two, and each is some ten KiB by itself. A list is one that many share,
// and where it differs. Loop thread. Owns nothing that no list holds any more.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "sandbox/kernel_features.h"

namespace pulga {

class FeatureShelf {
 public:
  struct List {
    std::shared_ptr<const std::vector<Feature>> shared;  // null: an empty one
    std::vector<std::pair<size_t, Feature>> own;         // instead of those at these places
  };
  List Keep(const std::vector<Feature>& features);
  size_t size() const { return shared_.size(); }  // those of no list any more may still be counted

 private:
  // The newest last. What is like none of so many is kept whole.
  static constexpr size_t kMost = 16;
  std::vector<std::weak_ptr<const std::vector<Feature>>> shared_;
};

std::vector<Feature> Unpacked(const FeatureShelf::List& list);

}  // namespace pulga
