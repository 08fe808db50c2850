// Turns: who is next where memory, or a place for an instance, is short: fair between functions, by
// weight. Every start moves its function's pass on by what it takes of the board over the weight;
// of those that wait the least pass is next, and of equals the oldest call. Who was away comes back
// level with the one that is next: nothing is saved up, and however much one function wants,
// another's turn comes. Each question and each change is O(log n) of the claims (a treap). Pure.
// Source: Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996; Waldspurger and Weihl,
// "Stride Scheduling", 1995; what is taken: Ghodsi et al., "Dominant Resource Fairness", 2011.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <unordered_map>

#include "base/clock.h"

namespace pulga {

// What a start takes of the board.
struct Taking {
  static constexpr uint64_t kAll = 1 << 20;
  uint64_t parts = kAll;  // of kAll: of the memory or of the places, whichever is more
  uint32_t weight = 100;  // of whoever starts
};

// What somebody was denied and still wants.
struct Claim {
  uint64_t id = 0;                                                 // whose; each has one at most
  enum class For : uint8_t { kCall, kMinimum } what = For::kCall;  // a minimum is behind all calls
  uint64_t pass = 0;
  TimePoint since;  // when its oldest call began to wait
  uint64_t bytes = 0;
  enum class Place : uint8_t { kHas, kNeeds } place = Place::kNeeds;  // an instance more
  TimePoint closes_at = TimePoint::max();  // from then on nobody behind it gets anything
};

class Turns {
 public:
  Turns();
  ~Turns();
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // Where a function is that had `pass` after its last start.
  uint64_t PassFrom(uint64_t pass) const { return pass > now_ ? pass : now_; }
  // It starts something: where it is afterwards. Its claim, if it had one, is gone before.
  uint64_t Started(uint64_t pass, const Taking& taking);

  void Put(const Claim& claim);  // in place of the one it has
  void Remove(uint64_t id);      // if it has one
  bool empty() const { return nodes_.empty(); }
  size_t size() const { return nodes_.size(); }
  // Pointers hold until the next change; null: none.
  const Claim* Find(uint64_t id) const;
  const Claim* First() const;
  struct Amount {
    uint64_t bytes = 0;
    uint64_t places = 0;
  };
  const Claim* FirstThatFits(const Amount& free) const;
  // The first that, with all ahead of it, wants more of either.
  const Claim* FirstBeyond(Amount there) const;
  static bool IsAhead(const Claim& one, const Claim& other);
  Amount WantedAhead(const Claim& claim) const;
  bool IsClosedTo(const Claim& claim, TimePoint now) const;  // by one ahead of it
  const Claim* FirstThatCloses(TimePoint now) const;         // to all behind it
  size_t Depth() const;                                      // what a question costs at most

 private:
  struct Node;
  using Tree = std::unique_ptr<Node>;

  static void Split(Tree tree, const Claim& at, Tree* ahead, Tree* rest);
  static Tree Merge(Tree ahead, Tree behind);
  static void Erase(Tree* tree, const Claim& claim);

  std::minstd_rand random_;  // the same turns give the same tree
  Tree root_;
  std::unordered_map<uint64_t, const Node*> nodes_;
  uint64_t now_ = 0;  // the pass of whoever is next, or was last
};

}  // namespace pulga
