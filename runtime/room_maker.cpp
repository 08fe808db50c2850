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

// Where its turn is. A claim it has keeps its place, whatever the others got meanwhile.
Claim RoomMaker::ClaimOf(const Pool& pool, Since since) const {
  Claim claim;
  claim.id = pool.id();
  claim.what = since ? Claim::For::kCall : Claim::For::kMinimum;
  const Claim* own = turns_.Find(pool.id());
  const bool keeps = own != nullptr && own->what == claim.what;
  claim.pass = keeps ? own->pass : turns_.PassFrom(pool.book().pass);
  claim.since = keeps ? own->since : since.value_or(TimePoint());
  return claim;
}

bool RoomMaker::MayTake(const Pool& pool, Since since) const {
  if (!anybody_denied()) return true;
  const Claim claim = ClaimOf(pool, since);
  if (turns_.IsClosedTo(claim, clock_.Now())) return false;
  const Claim* fits = turns_.FirstThatFits({memory_.free_bytes(), memory_.free_places()});
  return fits == nullptr || fits->what == Claim::For::kMinimum || !Turns::IsAhead(*fits, claim);
}

void RoomMaker::Denied(Pool& pool, Claim claim) {
  const bool call = claim.what == Claim::For::kCall;
  const Claim place = ClaimOf(pool, call ? Since(claim.since) : std::nullopt);
  const Claim* own = turns_.Find(pool.id());
  const bool gives_up = !call && own != nullptr && own->what == Claim::For::kCall;
  claim.id = place.id;
  claim.pass = place.pass;
  turns_.Put(claim);
  claimants_[pool.id()] = &pool;
  if (gives_up && on_satisfied) on_satisfied();
}

void RoomMaker::Satisfied(const Pool& pool) {
  if (claimants_.erase(pool.id()) == 0) return;
  const bool call = turns_.Find(pool.id())->what == Claim::For::kCall;
  turns_.Remove(pool.id());
  if (call && on_satisfied) on_satisfied();
}

void RoomMaker::Started(Pool& pool, uint64_t bytes) {
  const uint64_t pass = ClaimOf(pool, clock_.Now()).pass;
  Satisfied(pool);
  Taking taking;
  taking.parts = std::max(bytes * Taking::kAll / std::max<uint64_t>(memory_.total(), 1),
                          Taking::kAll / std::max(memory_.most_instances(), 1U));
  taking.weight = pool.version().spec.scale.weight;
  pool.book().pass = turns_.Started(pass, taking);
}

void RoomMaker::ServeInTurn() {
  std::vector<Pool*> pools;
  for (const uint64_t id : turns_.InOrder()) pools.push_back(claimants_.at(id));
  for (Pool* pool : pools) pool->Evaluate();
}

void RoomMaker::Gather(const Pool& hungry, const Claim& claim) {
  idle_.clear();
  ending_ = closing_ = 0;
  ahead_ = turns_.BytesAhead(claim);
  for (Pool* pool : pools_()) {
    ending_ += pool->EndingBytes();
    closing_ += pool->ClosingBytes();
    const Claim* other = turns_.Find(pool->id());
    const bool ahead = pool != &hungry && other != nullptr && Turns::IsAhead(*other, claim);
    if (!ahead) pool->OfferIdle(&idle_);
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

RoomMaker::Answer RoomMaker::Make(Pool& hungry, uint64_t more, Since since, Slot slot) {
  Gather(hungry, ClaimOf(hungry, since));
  if (memory_.full() && slot == Slot::kNeedsOne) {
    const bool freed = ending_ > 0 || FreeASlot();
    return freed ? Answer::kSoon : Answer::kLater;
  }
  RoomRequest request;
  request.bytes = more;
  request.used = memory_.used() - std::min(ending_, memory_.used()) + ahead_;
  request.budget = memory_.total();
  request.clock = room_clock_;
  const RoomPlan plan = Plan(request);
  if (plan.verdict == RoomPlan::Verdict::kAdmit) return Apply(plan);
  if (hungry.limit_bytes() + Promised(hungry) > memory_.total()) return Answer::kNever;
  const Claim* own = turns_.Find(hungry.id());
  if (since && own != nullptr && own->closes_at <= clock_.Now()) {
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
