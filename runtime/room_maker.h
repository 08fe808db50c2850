// RoomMaker: the memory budget between functions. Whose call gets memory next (policy/turns: by
// weight), and which idle instances of others go down the ladder for it (policy/room: least worth
// first, never one with a call). Who is next and was denied memory for a second gets it: nobody
// behind gets any, and if calls under way hold it, servers of the least called function take no new
// ones. Loop thread. While nobody is denied any, a start asks it one comparison. While somebody is,
// what comes free costs O(log n) of those that wait, and a look at each pool that changed; all that
// have something idle are looked at only where that would be enough.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "runtime/function_spec.h"
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

// What a pool's instances hold: bytes, and places for instances.
struct Holding {
  uint64_t idle = 0;      // others may have it
  uint64_t ending = 0;    // on its way to be free
  uint64_t closing = 0;   // free once calls under way have ended
  uint64_t promised = 0;  // by scale.min, held or not
  // Idle, and a call of its own waits for what it lacks: others may have it once that call is
  // denied everything (Turns::IsClosedTo), or each would wait for the other.
  uint64_t hoped = 0;
  uint32_t hoped_places = 0;
  uint32_t idle_places = 0;
  uint32_t ending_places = 0;
};

class RoomMaker {
 public:
  // What is known of a pool; kept by it.
  class Share {
    friend class RoomMaker;
    Holding held;
    bool stale = false;  // it changed since
  };
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
  // Something came free: those who can have it now try again, in turn.
  void ServeInTurn();
  void Changed(Pool& pool);  // what it holds, or may be asked for
  void Forget(Pool& pool);   // it goes
  void NoteIdle() {          // somebody's instance just became so
    if (anybody_unmet() && on_satisfied) on_satisfied();
  }
  // One instance of so much, were all others as small as they may be.
  bool CouldFit(const Pool& pool, uint64_t bytes) {
    return bytes + Promised(pool) <= memory_.total();
  }
  double clock() const { return room_clock_; }  // greedy-dual's

 private:
  Claim ClaimOf(const Pool& pool, Since since) const;
  Pool* NextThatFits() const;
  Pool* NextInReach();
  Pool* FirstThatStarves();
  uint64_t UsedThen() const;                // once what ends has ended
  uint64_t PlacesThen() const;              // that are free then
  Turns::Amount IdleFor(Pool& pool) const;  // at most
  void Refresh();
  void Know(Pool& pool, const Holding& held);
  void KnowPromise(const Pool& pool, uint64_t bytes);
  void Gather(const Pool& hungry, const Claim& claim);
  bool FreeASlot();
  std::vector<Holder> Holders();  // idle_, as the policy sees them
  RoomPlan Plan(const RoomRequest& request);
  Answer Apply(const RoomPlan& plan);
  void CloseFor(const Pool& hungry, uint64_t missing);
  uint64_t Promised(const Pool& hungry);

  MemoryBudget& memory_;
  const Clock& clock_;
  std::function<std::vector<Pool*>()> pools_;
  Turns turns_;
  std::unordered_map<uint64_t, Pool*> claimants_;  // by id
  uint64_t giving_up_ = 0;                         // the pool whose spawner goes, by id; 0 = none
  TimePoint place_due_;                            // no other goes before, when it has gone
  TimePoint place_late_;                           // or before this
  double room_clock_ = 0;
  uint64_t progress_ = 0;               // starts, and rounds of demotions
  Holding held_;                        // by all pools, but for `promised`
  std::vector<Pool*> stale_;            // not yet in held_ as they are
  std::map<uint64_t, Pool*> offering_;  // those with something idle or hoped for, by id
  // What scale.min promises of each function: by pools' ids; of two versions one is about to go.
  std::map<FunctionKey, std::map<uint64_t, uint64_t>> promises_;
  uint64_t promised_ = 0;           // of each function the most
  std::vector<IdleInstance> idle_;  // of the question at hand
};

}  // namespace pulga
