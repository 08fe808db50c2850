// Pool, fifth part: memory. What its instances hold of the budget, what it does when it is denied
// some, and what it gives up when others are.
#include <algorithm>
#include <utility>

#include "base/units.h"
#include "runtime/pool.h"

namespace pulga {
namespace {

Rung RungOf(InstanceStep step) {
  switch (step) {
    case InstanceStep::kParked:
      return Rung::kParked;
    case InstanceStep::kFrozen:
      return Rung::kFrozen;
    case InstanceStep::kReclaimed:
      return Rung::kReclaimed;
    default:
      return Rung::kWarm;
  }
}

}  // namespace

// --- taking

MemoryBudget::Lease Pool::TakeMemory(uint64_t bytes, Since since) {
  if (phase_ == PoolPhase::kProving) {
    MemoryBudget::Lease lease = context_.memory.Force(bytes);
    const bool over = context_.memory.used() > context_.memory.total();
    if (over && context_.room != nullptr)
      (void)context_.room->Make(*this, 0, since, RoomMaker::Slot::kHasOne);
    return lease;
  }
  if (context_.room != nullptr && !context_.room->MayTake(*this, since)) return {};
  MemoryBudget::Lease lease = context_.memory.Take(bytes);
  if (lease.held()) NoteStart(bytes);
  return lease;
}

bool Pool::GrowMemory(Instance& instance, Since since) {
  if (instance.memory.bytes() >= limit_bytes()) return true;
  if (context_.room != nullptr && !context_.room->MayTake(*this, since)) return false;
  const uint64_t held = instance.memory.bytes();
  if (!context_.memory.Resize(&instance.memory, limit_bytes())) return false;
  NoteStart(limit_bytes() - held);
  return true;
}

void Pool::NoteStart(uint64_t bytes) {
  denied_bytes_ = 0;
  Changed();
  if (context_.room != nullptr) context_.room->Started(*this, bytes);
}

void Pool::WantNoMore() {
  if (std::exchange(denied_bytes_, 0) > 0 && context_.room != nullptr)
    context_.room->Satisfied(*this);
}

void Pool::CallsGone() {
  if (min_ == 0) return WantNoMore();
  if (denied_bytes_ > 0) NoteDenied(denied_bytes_, std::nullopt, Need::kMinimum);
}

void Pool::NoteDenied(uint64_t bytes, Since since, Need need) {
  denied_bytes_ = bytes;
  if (context_.room == nullptr) return;
  Claim claim;
  claim.what = need == Need::kMinimum ? Claim::For::kMinimum : Claim::For::kCall;
  claim.since = since.value_or(TimePoint());
  claim.bytes = bytes;
  claim.place = need == Need::kGrowth ? Claim::Place::kHas : Claim::Place::kNeeds;
  // Who has an instance gets on, if slowly: others are not sent away for its second.
  if (since && !GetsOn()) claim.closes_at = *since + RoomMaker::kPatience;
  context_.room->Denied(*this, claim);
}

// Until its memory is there a call waits; one that can never have it is told.
bool Pool::NoMemory(uint64_t more, Since since, Need need) {
  trouble_ = "the memory budget is used up";
  // What its first call needs is what it is woken for; the others ask again then.
  if (!evaluating_ || !wants_memory_) NoteDenied(more, since, need);
  wants_memory_ = true;
  // From its patience's end on nobody behind it gets any. After that it looks by itself now and
  // then: what is freed wakes those that it is known to be for, which may be somebody else each
  // time.
  const TimePoint now = context_.clock.Now();
  const TimePoint closes = since.value_or(now) + RoomMaker::kPatience;
  LookAgainAt(closes > now ? closes : now + RoomMaker::kPatience);
  // Somebody else's call is next.
  if (context_.room == nullptr || !context_.room->MayTake(*this, since)) return true;
  const auto slot = need == Need::kGrowth ? RoomMaker::Slot::kHasOne : RoomMaker::Slot::kNeedsOne;
  switch (context_.room->Make(*this, more, since, slot)) {
    case RoomMaker::Answer::kAgain:
      evaluate_again_ = true;
      return true;
    case RoomMaker::Answer::kSoon:
    case RoomMaker::Answer::kLater:
      return true;  // it is tried again when something is freed
    case RoomMaker::Answer::kNever:
      break;
  }
  if (need == Need::kMinimum || GetsOn() || ShrinkToFit()) return true;
  FailWaiting({OutcomeKind::kRejected, 0, std::string(kRejectMemory)}, NeverFits(), 5);
  evaluate_again_ = true;  // nothing else will happen here: the idle spawner has to be planned for
  return false;
}

FailureFacts Pool::NeverFits() const {
  FailureFacts facts;
  const uint64_t budget = context_.memory.total();
  facts.remark =
      "it needs " + HumanBytes(limit_bytes()) + ", and of " + HumanBytes(budget) + " " +
      (limit_bytes() > budget ? "there is no more" : "scale.min of others keeps the rest");
  return facts;
}

// --- giving

std::optional<TimePoint> Pool::OldestWaiting() const {
  if (waiting_.empty()) return std::nullopt;
  return waiting_.front()->submitted;
}

bool Pool::GetsOn() const {
  return std::any_of(instances_.begin(), instances_.end(), [](const auto& instance) {
    return instance->step == InstanceStep::kWarm || instance->step == InstanceStep::kRunning ||
           instance->step == InstanceStep::kStarting;
  });
}

Holding Pool::Holds() const {
  Holding held;
  for (const auto& instance : instances_) {
    const uint64_t bytes = instance->memory.bytes();
    const bool ending = instance->step == InstanceStep::kEnding;
    if (instance->calls.empty()) {
      held.ending += ending ? bytes : 0;
      held.ending_places += ending ? 1 : 0;
    } else if (ending || instance->closed || instance->step == InstanceStep::kRunning) {
      held.closing += bytes;
    }
  }
  for (const Instance* instance : Spare(Hoped::kKept)) {
    held.idle += instance->memory.bytes();
    ++held.idle_places;
  }
  if (!waiting_.empty()) {
    for (const Instance* instance : Spare(Hoped::kOffered)) {
      held.hoped += instance->memory.bytes();
      ++held.hoped_places;
    }
    held.hoped -= std::min(held.hoped, held.idle);
    held.hoped_places -= std::min(held.hoped_places, held.idle_places);
  }
  if (phase_ == PoolPhase::kDraining) return held;
  const uint64_t each = version_->mode == SandboxMode::kExec ? kParkedInstanceBytes : limit_bytes();
  held.promised = std::min(min_, version_->spec.scale.max) * each;
  return held;
}

// Idle ones beyond scale.min, the longest idle last; and, unless that is offered, none that a call
// of its own is about to get.
std::vector<const Instance*> Pool::Spare(Hoped hoped) const {
  std::vector<const Instance*> quiet;
  if (phase_ == PoolPhase::kProving) return quiet;
  uint32_t busy = 0;
  const bool keeps = hoped == Hoped::kKept && !waiting_.empty();
  const Instance* next = keeps ? FindUsable() : nullptr;
  for (const auto& instance : instances_) {
    if (IsQuiet(*instance) && instance.get() != next) {
      quiet.push_back(instance.get());
    } else if (instance->step != InstanceStep::kEnding) {
      ++busy;
    }
  }
  std::sort(quiet.begin(), quiet.end(),
            [](const Instance* a, const Instance* b) { return a->idle_since > b->idle_since; });
  const uint32_t least = phase_ == PoolPhase::kDraining ? 0 : min_;
  const size_t kept = std::min<size_t>(least > busy ? least - busy : 0, quiet.size());
  quiet.erase(quiet.begin(), quiet.begin() + static_cast<std::ptrdiff_t>(kept));
  return quiet;
}

void Pool::OfferIdle(std::vector<IdleInstance>* out, Hoped hoped) {
  PoolSnapshot snapshot;
  const std::vector<const Instance*> spare = Spare(hoped);
  if (!spare.empty()) PlanLadder(&snapshot);
  for (const Instance* one : spare) {
    const Instance& instance = *one;
    IdleInstance offer{this, instance.slot, RungOf(instance.step), snapshot.ladder};
    offer.ladder[offer.rung].bytes = instance.memory.bytes();
    offer.ladder[Rung::kReclaimed].offered = false;  // nobody waits for swap
    if (offer.rung == Rung::kWarm && book_->costs().at(Rung::kFrozen).sights == 0) {
      const uint64_t now = spawner_ == nullptr ? 0 : spawner_->MemoryBytes(instance.slot);
      if (now > 0) offer.ladder[Rung::kFrozen].bytes = now;
    }
    for (auto rung = static_cast<size_t>(offer.rung); rung-- > 0;) {
      RungCost& lower = offer.ladder.rungs[rung];
      lower.bytes = std::min(lower.bytes, offer.ladder.rungs[rung + 1].bytes);
    }
    offer.ladder[Rung::kCold].bytes = 0;
    out->push_back(offer);
  }
}

void Pool::Lower(uint16_t slot, Rung to) {
  Instance* instance = Find(slot);
  if (instance == nullptr || !IsQuiet(*instance)) return;
  if (to == Rung::kFrozen && instance->step == InstanceStep::kWarm) {
    Decide("freezes an instance: another function needs the memory");
    Freeze(*instance);
    if (instance->step == InstanceStep::kFrozen) return;
  }
  Decide("stops an instance: another function needs the memory");
  Stop(*instance);
}

void Pool::EndIdle(uint16_t slot, const char* why) {
  Instance* instance = Find(slot);
  if (instance == nullptr || !IsQuiet(*instance)) return;
  Decide(std::string("stops an instance: ") + why);
  Stop(*instance);
}

uint64_t Pool::CloseOne() {
  if (!IsServer(version_->mode) || phase_ == PoolPhase::kProving) return 0;
  Instance* busy = nullptr;
  uint32_t open = 0;
  for (const auto& instance : instances_) {
    if (instance->step != InstanceStep::kWarm || instance->closed) continue;
    ++open;
    if (!instance->calls.empty()) busy = instance.get();
  }
  if (busy == nullptr || open <= min_) return 0;
  busy->closed = true;
  Changed();
  Decide("closes an instance to new calls: another function's call has waited too long for memory");
  return busy->memory.bytes();
}

bool Pool::CanGiveUpSpawner() const {
  return spawner_step_ == SpawnerStep::kReady && phase_ == PoolPhase::kActive && min_ == 0 &&
         waiting_.empty() && expected_.empty() && !proof_done_ &&
         std::all_of(instances_.begin(), instances_.end(),
                     [](const auto& instance) { return IsQuiet(*instance); });
}

void Pool::GiveUpSpawner() {
  Decide("drops the spawner: another function needs its place");
  use_ = PoolSnapshot::Use::kNone;
  last_used_ = context_.clock.Now() - PlannedWarmth().until;
  Evaluate();
}

bool Pool::GivesUpSpawner() const {
  return use_ == PoolSnapshot::Use::kNone && (spawner_ != nullptr || dying_spawner_ != nullptr);
}

}  // namespace pulga
