#include "runtime/room_maker.h"

#include <algorithm>

#include "runtime/pool.h"

namespace pulga {
namespace {

// The launcher still takes down what the version had.
constexpr Duration kTearDown = std::chrono::milliseconds(100);
// Who fits and starts nothing has an event of its own to come.
constexpr int kTriesInVain = 8;
// Then it is not on its way out any more: it was wanted again.
constexpr Duration kPlaceLate = std::chrono::seconds(10);

uint64_t MostOf(const std::map<uint64_t, uint64_t>& promises) {
  uint64_t most = 0;
  for (const auto& [id, bytes] : promises) most = std::max(most, bytes);
  return most;
}

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
  ++progress_;
  Satisfied(pool);
  Taking taking;
  taking.parts = std::max(bytes * Taking::kAll / std::max<uint64_t>(memory_.total(), 1),
                          Taking::kAll / std::max(memory_.most_instances(), 1U));
  taking.weight = pool.version().spec.scale.weight;
  pool.book().pass = turns_.Started(pass, taking);
}

// --- who is next

void RoomMaker::ServeInTurn() {
  for (int vain = 0; vain < kTriesInVain;) {
    Pool* pool = NextThatFits();
    if (pool == nullptr) break;
    const uint64_t before = progress_;
    pool->Evaluate();
    vain = progress_ == before ? vain + 1 : 0;
  }
  for (Pool* pool = NextInReach(); pool != nullptr; pool = NextInReach()) {
    const uint64_t before = progress_;
    pool->Evaluate();
    if (progress_ == before) break;
  }
  if (Pool* pool = FirstThatStarves()) pool->Evaluate();
}

Pool* RoomMaker::NextThatFits() const {
  const Claim* next = turns_.FirstThatFits({memory_.free_bytes(), memory_.free_places()});
  if (next == nullptr) return nullptr;
  return turns_.IsClosedTo(*next, clock_.Now()) ? nullptr : claimants_.at(next->id);
}

// The first one for whom nothing is on its way, if enough is idle for it and all before it.
Pool* RoomMaker::NextInReach() {
  if (turns_.empty()) return nullptr;
  Refresh();
  const uint64_t used = UsedThen();
  const uint64_t total = memory_.total();
  const Turns::Amount then = {total - std::min(used, total), PlacesThen()};
  const Claim* next = turns_.FirstBeyond(then);
  if (next == nullptr || turns_.IsClosedTo(*next, clock_.Now())) return nullptr;
  Pool* const pool = claimants_.at(next->id);
  const Turns::Amount idle = IdleFor(*pool);
  Turns::Amount wanted = turns_.WantedAhead(*next);
  wanted.bytes += next->bytes;
  wanted.places += next->place == Claim::Place::kNeeds ? 1 : 0;
  const bool bytes = used + wanted.bytes <= total + idle.bytes;
  return bytes && wanted.places <= then.places + idle.places ? pool : nullptr;
}

// Nothing is idle for it and no end is in sight: somebody must take no more calls. Those ahead of
// it get on.
Pool* RoomMaker::FirstThatStarves() {
  const Claim* first = turns_.FirstThatCloses(clock_.Now());
  if (first == nullptr) return nullptr;
  Refresh();
  Pool* const pool = claimants_.at(first->id);
  const uint64_t reachable = held_.ending + held_.closing + IdleFor(*pool).bytes;
  const bool hopeless = memory_.used() + first->bytes > memory_.total() + reachable;
  return hopeless ? pool : nullptr;
}

// --- what is there

void RoomMaker::Changed(Pool& pool) {
  if (std::exchange(pool.room_share().stale, true)) return;
  stale_.push_back(&pool);
}

void RoomMaker::Forget(Pool& pool) {
  Know(pool, {});
  std::erase(stale_, &pool);
}

void RoomMaker::Refresh() {
  for (Pool* pool : stale_) {
    pool->room_share().stale = false;
    Know(*pool, pool->Holds());
  }
  stale_.clear();
}

void RoomMaker::Know(Pool& pool, const Holding& held) {
  const Holding before = std::exchange(pool.room_share().held, held);
  held_.idle += held.idle - before.idle;
  held_.ending += held.ending - before.ending;
  held_.closing += held.closing - before.closing;
  held_.hoped += held.hoped - before.hoped;
  held_.hoped_places += held.hoped_places - before.hoped_places;
  held_.idle_places += held.idle_places - before.idle_places;
  held_.ending_places += held.ending_places - before.ending_places;
  const bool offers = held.idle + held.hoped > 0;
  if (offers) offering_[pool.id()] = &pool;
  if (!offers && before.idle + before.hoped > 0) offering_.erase(pool.id());
  if (held.promised != before.promised) KnowPromise(pool, held.promised);
}

void RoomMaker::KnowPromise(const Pool& pool, uint64_t bytes) {
  std::map<uint64_t, uint64_t>& by_id = promises_[pool.version().key];
  promised_ -= MostOf(by_id);
  by_id.erase(pool.id());
  if (bytes > 0) by_id[pool.id()] = bytes;
  promised_ += MostOf(by_id);
  if (by_id.empty()) promises_.erase(pool.version().key);
}

// What scale.min keeps for the others, come what may.
uint64_t RoomMaker::Promised(const Pool& hungry) {
  Refresh();
  const auto own = promises_.find(hungry.version().key);
  return own == promises_.end() ? promised_ : promised_ - MostOf(own->second);
}

uint64_t RoomMaker::UsedThen() const {
  return memory_.used() - std::min(held_.ending, memory_.used());
}

uint64_t RoomMaker::PlacesThen() const {
  const uint64_t held = memory_.instances() - std::min(held_.ending_places, memory_.instances());
  return memory_.most_instances() - std::min<uint64_t>(held, memory_.most_instances());
}

void RoomMaker::Gather(const Pool& hungry, const Claim& claim) {
  idle_.clear();
  const TimePoint now = clock_.Now();
  for (const auto& [id, pool] : offering_) {
    const Claim* other = turns_.Find(id);
    const bool ahead = pool != &hungry && other != nullptr && Turns::IsAhead(*other, claim);
    if (ahead) continue;
    const bool denied = pool != &hungry && other != nullptr && turns_.IsClosedTo(*other, now);
    pool->OfferIdle(&idle_, denied ? Pool::Hoped::kOffered : Pool::Hoped::kKept);
  }
}

Turns::Amount RoomMaker::IdleFor(Pool& pool) const {
  const Holding& own = pool.room_share().held;
  return {held_.idle + held_.hoped - own.hoped,
          uint64_t{held_.idle_places} + held_.hoped_places - own.hoped_places};
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
  if (!plan.demotions.empty()) ++progress_;
  for (const Demotion& demotion : plan.demotions) {
    const IdleInstance& idle = idle_[demotion.holder];
    idle.pool->Lower(idle.slot, demotion.to);
    if (demotion.to == Rung::kFrozen) answer = Answer::kAgain;  // a freeze frees at once
  }
  return answer;
}

RoomMaker::Answer RoomMaker::Make(Pool& hungry, uint64_t more, Since since, Slot slot) {
  Refresh();
  const Claim claim = ClaimOf(hungry, since);
  const Turns::Amount ahead = turns_.WantedAhead(claim);
  const Turns::Amount idle = IdleFor(hungry);
  if (slot == Slot::kNeedsOne && PlacesThen() <= ahead.places) {
    if (PlacesThen() + idle.places <= ahead.places) return Answer::kLater;
    Gather(hungry, claim);
    return FreeASlot() ? Answer::kSoon : Answer::kLater;
  }
  RoomRequest request;
  request.bytes = more;
  request.used = UsedThen() + ahead.bytes;
  request.budget = memory_.total();
  request.clock = room_clock_;
  if (request.used + more <= request.budget) return Answer::kSoon;
  if (request.used + more <= request.budget + idle.bytes) {
    Gather(hungry, claim);
    const RoomPlan plan = Plan(request);
    if (plan.verdict == RoomPlan::Verdict::kAdmit) return Apply(plan);
  }
  if (hungry.limit_bytes() + Promised(hungry) > memory_.total()) return Answer::kNever;
  const Claim* own = turns_.Find(hungry.id());
  if (since && own != nullptr && own->closes_at <= clock_.Now()) {
    const uint64_t reachable = held_.ending + held_.closing + idle.bytes;
    const uint64_t wanted = memory_.used() + more;
    if (wanted > memory_.total() + reachable) {
      CloseFor(hungry, wanted - memory_.total() - reachable);
    }
  }
  return Answer::kLater;
}

void RoomMaker::GiveUp(size_t most, Whose whose, const char* why) {
  Refresh();
  idle_.clear();
  for (const auto& [id, pool] : offering_) {
    const bool server = IsServer(pool->version().mode);
    if (server || whose == Whose::kAll) pool->OfferIdle(&idle_, Pool::Hoped::kKept);
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
