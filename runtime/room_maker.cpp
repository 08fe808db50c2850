#include "runtime/room_maker.h"

#include <algorithm>
#include <map>

#include "runtime/pool.h"

namespace pulga {
namespace {

// The launcher still takes down what the version had.
constexpr Duration kTearDown = std::chrono::milliseconds(100);
// Then it is not on its way out any more: it was wanted again.
constexpr Duration kPlaceLate = std::chrono::seconds(10);

}  // namespace

bool RoomMaker::MayTake(const Pool& pool, TimePoint since) const {
  if (denied_ == 0) return true;
  const TimePoint now = clock_.Now();
  const std::vector<Pool*> pools = pools_();
  return std::none_of(pools.begin(), pools.end(), [&](const Pool* other) {
    if (other == &pool || other->denied_bytes() == 0) return false;
    const std::optional<TimePoint> waits = other->OldestWaiting();
    if (!waits || *waits >= since) return false;
    return other->Starves(now) || memory_.Fits(other->denied_bytes());
  });
}

void RoomMaker::Gather(const Pool& hungry, TimePoint since) {
  idle_.clear();
  ending_ = closing_ = older_ = 0;
  for (Pool* pool : pools_()) {
    ending_ += pool->EndingBytes();
    closing_ += pool->ClosingBytes();
    const std::optional<TimePoint> waits = pool->OldestWaiting();
    const bool older = pool != &hungry && waits && *waits < since;
    if (older) {
      older_ += pool->denied_bytes();
    } else {
      pool->OfferIdle(&idle_);
    }
  }
}

std::vector<Holder> RoomMaker::Holders() {
  std::vector<Holder> holders;
  holders.reserve(idle_.size());
  const TimePoint now = clock_.Now();
  for (const IdleInstance& idle : idle_) {
    FunctionBook& book = idle.pool->book();
    holders.push_back(
        {Holder::Use::kIdle, idle.rung, &idle.ladder, book.Frequency(now), book.room_clock});
  }
  return holders;
}

RoomPlan RoomMaker::Plan(const RoomRequest& request) {
  const RoomPlan plan = PlanRoom(Holders(), request);
  room_clock_ = std::max(room_clock_, plan.clock);
  return plan;
}

RoomMaker::Answer RoomMaker::Apply(const RoomPlan& plan) {
  Answer answer = Answer::kSoon;
  for (const Demotion& demotion : plan.demotions) {
    const IdleInstance& idle = idle_[demotion.holder];
    idle.pool->Lower(idle.slot, demotion.to);
    if (demotion.to == Rung::kFrozen) answer = Answer::kAgain;  // a freeze frees at once
  }
  return answer;
}

RoomMaker::Answer RoomMaker::Make(Pool& hungry, uint64_t more, TimePoint since, Slot slot) {
  Gather(hungry, since);
  if (memory_.full() && slot == Slot::kNeedsOne) {
    const bool freed = ending_ > 0 || FreeASlot();
    return freed ? Answer::kSoon : Answer::kLater;
  }
  RoomRequest request;
  request.bytes = more;
  request.used = memory_.used() - std::min(ending_, memory_.used()) + older_;
  request.budget = memory_.total();
  request.clock = room_clock_;
  const RoomPlan plan = Plan(request);
  if (plan.verdict == RoomPlan::Verdict::kAdmit) return Apply(plan);
  if (hungry.limit_bytes() + Promised(hungry) > memory_.total()) return Answer::kNever;
  if (clock_.Now() >= since + kPatience && hungry.Starves(clock_.Now())) {
    uint64_t reachable = ending_ + closing_;
    for (const IdleInstance& idle : idle_) reachable += idle.ladder[idle.rung].bytes;
    const uint64_t wanted = memory_.used() + more;
    if (wanted > memory_.total() + reachable) {
      CloseFor(hungry, wanted - memory_.total() - reachable);
    }
  }
  return Answer::kLater;
}

void RoomMaker::GiveUp(size_t most, Whose whose, const char* why) {
  idle_.clear();
  for (Pool* pool : pools_()) {
    const bool http = pool->version().mode == SandboxMode::kHttp;
    if (http || whose == Whose::kAll) pool->OfferIdle(&idle_);
  }
  for (const size_t chosen : WorthLeast(Holders(), most)) {
    idle_[chosen].pool->EndIdle(idle_[chosen].slot, why);
  }
}

// There are as many instances as there may be: the same choice, counting them instead of bytes.
bool RoomMaker::FreeASlot() {
  for (IdleInstance& idle : idle_) {
    for (RungCost& cost : idle.ladder.rungs) cost.bytes = 1 << 20;
    idle.ladder[Rung::kCold].bytes = 0;
  }
  RoomRequest request;
  request.bytes = request.used = request.budget = 1 << 20;
  request.clock = room_clock_;
  const RoomPlan plan = Plan(request);
  if (plan.demotions.empty()) return false;
  (void)Apply(plan);
  return true;
}

// The least called function that has a server to spare goes first.
void RoomMaker::CloseFor(const Pool& hungry, uint64_t missing) {
  std::vector<Pool*> pools = pools_();
  const TimePoint now = clock_.Now();
  std::stable_sort(pools.begin(), pools.end(), [&](Pool* a, Pool* b) {
    return a->book().Frequency(now) < b->book().Frequency(now);
  });
  for (Pool* pool : pools) {
    while (pool != &hungry) {
      const uint64_t bytes = pool->CloseOne();
      if (bytes == 0) break;
      if (bytes >= missing) return;
      missing -= bytes;
    }
  }
}

// What scale.min keeps for the others, come what may. Of two versions one is about to go.
uint64_t RoomMaker::Promised(const Pool& hungry) const {
  std::map<FunctionKey, uint64_t> by_function;
  for (const Pool* pool : pools_()) {
    if (pool->version().key == hungry.version().key) continue;
    uint64_t& most = by_function[pool->version().key];
    most = std::max(most, pool->promised_bytes());
  }
  uint64_t bytes = 0;
  for (const auto& [key, most] : by_function) bytes += most;
  return bytes;
}

bool RoomMaker::DropASpawner(const Pool& hungry) {
  Pool* chosen = nullptr;
  const TimePoint now = clock_.Now();
  const std::vector<Pool*> pools = pools_();
  if (giving_up_ != 0 && now < place_late_) {
    const bool goes = std::any_of(pools.begin(), pools.end(), [this](const Pool* pool) {
      return pool->id() == giving_up_ && pool->GivesUpSpawner();
    });
    if (goes) place_due_ = now + kTearDown;
    if (now < place_due_) return true;
  }
  giving_up_ = 0;
  for (Pool* pool : pools) {
    if (pool == &hungry || !pool->CanGiveUpSpawner()) continue;
    if (chosen == nullptr || pool->book().Frequency(now) < chosen->book().Frequency(now)) {
      chosen = pool;
    }
  }
  if (chosen == nullptr) return false;
  giving_up_ = chosen->id();
  place_due_ = now + kTearDown;
  place_late_ = now + kPlaceLate;
  chosen->GiveUpSpawner();
  return true;
}

}  // namespace pulga
