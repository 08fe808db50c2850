// RoomMaker: the memory budget between functions. Whose call gets memory next (policy/turns: by
// weight), and which idle instances of others go down the ladder for it (policy/room: least worth
// first, never one with a call). Who is next and was denied memory for a second gets it: nobody
// behind gets any, and if calls under way hold it, servers of the least called function take no new
// ones. Loop thread. While nobody is denied any, a start asks it one comparison.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "runtime/memory_budget.h"
#include "runtime/policy/room.h"
#include "runtime/policy/turns.h"

namespace pulga {

class Pool;

// One that could go down the ladder, as its pool offers it.
struct IdleInstance {
  Pool* pool = nullptr;
  uint16_t slot = 0;
  Rung rung = Rung::kWarm;
  Ladder ladder;  // what it holds now, and would hold on lower rungs
};

class RoomMaker {
 public:
  static constexpr Duration kPatience = std::chrono::seconds(1);
  enum class Answer : uint8_t {
    kAgain,  // something was freed: try again now
    kSoon,   // something is on its way to be free
    kLater,  // calls under way hold it
    kNever,  // beside what scale.min keeps for others
  };

  RoomMaker(MemoryBudget& memory, const Clock& clock, std::function<std::vector<Pool*>()> pools)
      : memory_(memory), clock_(clock), pools_(std::move(pools)) {}

  // Is nobody next before a call of `pool` that waits since `since`? None: no call waits for it.
  using Since = std::optional<TimePoint>;
  bool MayTake(const Pool& pool, Since since) const;
  enum class Slot : uint8_t { kHasOne, kNeedsOne };  // of max_instances
  // `hungry` was denied `more` bytes, for a call that waits since `since`.
  Answer Make(Pool& hungry, uint64_t more, Since since, Slot slot);
  // Under pressure: ends so many idle instances, those worth least, in one look at all pools.
  enum class Whose : uint8_t { kServers, kAll };
  void GiveUp(size_t most, Whose whose, const char* why);
  // The launcher holds no more versions: one whose instances are all idle gives up its spawner,
  // and until that is gone no other does. False: none can.
  bool DropASpawner(const Pool& hungry);

  // `pool` was denied memory and still wants it: its claim, but for its pass.
  void Denied(Pool& pool, Claim claim);
  void Satisfied(const Pool& pool);          // or it gave up
  void Started(Pool& pool, uint64_t bytes);  // it got so many, for a start
  std::function<void()> on_satisfied;        // who gave way to it may try again
  bool anybody_denied() const {              // a call of somebody
    return !turns_.empty() && turns_.First()->what == Claim::For::kCall;
  }
  bool anybody_unmet() const { return !turns_.empty(); }  // or a scale.min
  // Something came free: whoever waits tries again, in turn.
  void ServeInTurn();
  void NoteIdle() {  // somebody's instance just became so
    if (anybody_denied() && on_satisfied) on_satisfied();
  }
  // One instance of so much, were all others as small as they may be.
  bool CouldFit(const Pool& pool, uint64_t bytes) const {
    return bytes + Promised(pool) <= memory_.total();
  }
  double clock() const { return room_clock_; }  // greedy-dual's

 private:
  Claim ClaimOf(const Pool& pool, Since since) const;
  void Gather(const Pool& hungry, const Claim& claim);
  bool FreeASlot();
  std::vector<Holder> Holders();  // idle_, as the policy sees them
  RoomPlan Plan(const RoomRequest& request);
  Answer Apply(const RoomPlan& plan);
  void CloseFor(const Pool& hungry, uint64_t missing);
  uint64_t Promised(const Pool& hungry) const;

  MemoryBudget& memory_;
  const Clock& clock_;
  std::function<std::vector<Pool*>()> pools_;
  Turns turns_;
  std::unordered_map<uint64_t, Pool*> claimants_;  // by id
  uint64_t giving_up_ = 0;                         // the pool whose spawner goes, by id; 0 = none
  TimePoint place_due_;                            // no other goes before, when it has gone
  TimePoint place_late_;                           // or before this
  double room_clock_ = 0;
  std::vector<IdleInstance> idle_;  // of the question at hand
  uint64_t ending_ = 0;             // on its way to be free
  uint64_t closing_ = 0;            // free once calls under way have ended
  uint64_t ahead_ = 0;              // what those whose turn comes before were denied
};

}  // namespace pulga
