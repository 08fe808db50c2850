#include "runtime/policy/turns.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace pulga {
namespace {

constexpr uint64_t kNothing = UINT64_MAX;  // of claims that are not there
constexpr uint64_t kHeaviest = 1000;

}  // namespace

// A heap by `order`, and a search tree by turn; what is below is summed up in each.
struct Turns::Node {
  Claim claim;
  uint32_t order = 0;
  Tree ahead, behind;
  Amount all;                            // of all here and below
  uint64_t least_with_place = kNothing;  // bytes, of those that need no place
  uint64_t least_without = kNothing;     // of those that do
  TimePoint closes_at;

  Amount Own() const {
    return {claim.bytes, claim.place == Claim::Place::kNeeds ? uint64_t{1} : uint64_t{0}};
  }
  bool Fits(const Amount& free) const {
    return least_with_place <= free.bytes || (free.places > 0 && least_without <= free.bytes);
  }
  void SumUp() {
    const bool needs = claim.place == Claim::Place::kNeeds;
    all = Own();
    least_with_place = needs ? kNothing : claim.bytes;
    least_without = needs ? claim.bytes : kNothing;
    closes_at = claim.closes_at;
    for (const Node* child : {ahead.get(), behind.get()}) {
      if (child == nullptr) continue;
      all.bytes += child->all.bytes;
      all.places += child->all.places;
      least_with_place = std::min(least_with_place, child->least_with_place);
      least_without = std::min(least_without, child->least_without);
      closes_at = std::min(closes_at, child->closes_at);
    }
  }
  size_t Depth() const {
    const size_t a = ahead == nullptr ? 0 : ahead->Depth();
    const size_t b = behind == nullptr ? 0 : behind->Depth();
    return 1 + std::max(a, b);
  }
};

Turns::Turns() = default;
Turns::~Turns() = default;

bool Turns::IsAhead(const Claim& one, const Claim& other) {
  return std::tie(one.what, one.pass, one.since, one.id) <
         std::tie(other.what, other.pass, other.since, other.id);
}

// While others wait the clock stands at the one who is next: whoever starts beside it, being small
// enough, does not send newcomers back to where it is itself.
uint64_t Turns::Started(uint64_t pass, const Taking& taking) {
  const uint64_t begun = PassFrom(pass);
  const Claim* first = First();
  const bool waits = first != nullptr && first->what == Claim::For::kCall;
  now_ = std::max(now_, waits ? std::min(begun, first->pass) : begun);
  return begun + taking.parts * kHeaviest / std::max(taking.weight, 1U);
}

// --- the tree

void Turns::Split(Tree tree, const Claim& at, Tree* ahead, Tree* rest) {
  if (tree == nullptr) {
    ahead->reset();
    rest->reset();
    return;
  }
  Tree middle;
  if (IsAhead(tree->claim, at)) {
    Split(std::move(tree->behind), at, &middle, rest);
    tree->behind = std::move(middle);
    tree->SumUp();
    *ahead = std::move(tree);
  } else {
    Split(std::move(tree->ahead), at, ahead, &middle);
    tree->ahead = std::move(middle);
    tree->SumUp();
    *rest = std::move(tree);
  }
}

Turns::Tree Turns::Merge(Tree ahead, Tree behind) {
  if (ahead == nullptr) return behind;
  if (behind == nullptr) return ahead;
  if (ahead->order > behind->order) {
    ahead->behind = Merge(std::move(ahead->behind), std::move(behind));
    ahead->SumUp();
    return ahead;
  }
  behind->ahead = Merge(std::move(ahead), std::move(behind->ahead));
  behind->SumUp();
  return behind;
}

void Turns::Erase(Tree* tree, const Claim& claim) {
  Node& node = **tree;
  if (IsAhead(claim, node.claim)) {
    Erase(&node.ahead, claim);
  } else if (IsAhead(node.claim, claim)) {
    Erase(&node.behind, claim);
  } else {
    *tree = Merge(std::move(node.ahead), std::move(node.behind));
    return;
  }
  node.SumUp();
}

void Turns::Put(const Claim& claim) {
  Remove(claim.id);
  auto node = std::make_unique<Node>();
  node->claim = claim;
  node->order = static_cast<uint32_t>(random_());
  node->SumUp();
  nodes_[claim.id] = node.get();
  Tree ahead, behind;
  Split(std::move(root_), claim, &ahead, &behind);
  root_ = Merge(Merge(std::move(ahead), std::move(node)), std::move(behind));
}

void Turns::Remove(uint64_t id) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return;
  const Claim claim = it->second->claim;
  nodes_.erase(it);
  Erase(&root_, claim);
}

// --- questions

const Claim* Turns::Find(uint64_t id) const {
  const auto it = nodes_.find(id);
  return it == nodes_.end() ? nullptr : &it->second->claim;
}

const Claim* Turns::First() const {
  const Node* node = root_.get();
  while (node != nullptr && node->ahead != nullptr) node = node->ahead.get();
  return node == nullptr ? nullptr : &node->claim;
}

const Claim* Turns::FirstThatFits(const Amount& free) const {
  const Node* node = root_.get();
  if (node == nullptr || !node->Fits(free)) return nullptr;
  while (true) {
    const bool place = node->claim.place == Claim::Place::kHas || free.places > 0;
    if (node->ahead != nullptr && node->ahead->Fits(free)) {
      node = node->ahead.get();
    } else if (place && node->claim.bytes <= free.bytes) {
      return &node->claim;
    } else {
      node = node->behind.get();
    }
  }
}

const Claim* Turns::FirstBeyond(Amount there) const {
  // False: it is more than there is, of which nothing is taken then.
  const auto take = [&there](const Amount& wanted) {
    if (wanted.bytes > there.bytes || wanted.places > there.places) return false;
    there.bytes -= wanted.bytes;
    there.places -= wanted.places;
    return true;
  };
  const Node* node = root_.get();
  while (node != nullptr) {
    if (!take(node->ahead == nullptr ? Amount() : node->ahead->all)) {
      node = node->ahead.get();
      continue;
    }
    if (!take(node->Own())) return &node->claim;
    node = node->behind.get();
  }
  return nullptr;
}

Turns::Amount Turns::WantedAhead(const Claim& claim) const {
  Amount wanted;
  for (const Node* node = root_.get(); node != nullptr;) {
    const bool ahead = IsAhead(node->claim, claim);
    if (ahead) {
      const Amount behind = node->behind == nullptr ? Amount() : node->behind->all;
      wanted.bytes += node->all.bytes - behind.bytes;
      wanted.places += node->all.places - behind.places;
    }
    node = ahead ? node->behind.get() : node->ahead.get();
  }
  return wanted;
}

bool Turns::IsClosedTo(const Claim& claim, TimePoint now) const {
  for (const Node* node = root_.get(); node != nullptr;) {
    if (!IsAhead(node->claim, claim)) {
      node = node->ahead.get();
      continue;
    }
    if (node->claim.closes_at <= now) return true;
    if (node->ahead != nullptr && node->ahead->closes_at <= now) return true;
    node = node->behind.get();
  }
  return false;
}

const Claim* Turns::FirstThatCloses(TimePoint now) const {
  const Node* node = root_.get();
  if (node == nullptr || node->closes_at > now) return nullptr;
  while (true) {
    if (node->ahead != nullptr && node->ahead->closes_at <= now) {
      node = node->ahead.get();
    } else if (node->claim.closes_at <= now) {
      return &node->claim;
    } else {
      node = node->behind.get();
    }
  }
}

size_t Turns::Depth() const { return root_ == nullptr ? 0 : root_->Depth(); }

}  // namespace pulga
