#include "runtime/pool_policy.h"

#include <algorithm>

#include "base/units.h"

namespace pulga {
namespace {

// Calls that come more often than this come all the time.
constexpr Duration kLately = std::chrono::seconds(4);

struct Counts {
  uint32_t parking = 0, parked = 0, starting = 0, warm = 0, frozen = 0, running = 0, ending = 0;
};

Counts Count(const PoolSnapshot& pool) {
  Counts n;
  for (const InstanceSnapshot& instance : pool.instances) {
    switch (instance.step) {
      case InstanceStep::kParking:
        ++n.parking;
        break;
      case InstanceStep::kParked:
        ++n.parked;
        break;
      case InstanceStep::kStarting:
        ++n.starting;
        break;
      case InstanceStep::kFrozen:  // serve as well, a moment later
      case InstanceStep::kReclaimed:
        ++n.frozen;
        [[fallthrough]];
      case InstanceStep::kWarm:
        ++n.warm;
        break;
      case InstanceStep::kRunning:
        ++n.running;
        break;
      case InstanceStep::kEnding:
        ++n.ending;
        break;
    }
  }
  return n;
}

// Might go when nobody needs it.
bool IsQuiet(const InstanceSnapshot& instance) {
  return instance.open_calls == 0 &&
         (instance.step == InstanceStep::kWarm || instance.step == InstanceStep::kFrozen ||
          instance.step == InstanceStep::kReclaimed || instance.step == InstanceStep::kParked);
}

std::string Calls(uint32_t n) { return std::to_string(n) + (n == 1 ? " call" : " calls"); }

class Planner {
 public:
  explicit Planner(const PoolSnapshot& pool) : pool_(pool), n_(Count(pool)) {
    free_.assign(pool.slots, true);
    for (const InstanceSnapshot& instance : pool.instances) {
      if (instance.slot < free_.size()) free_[instance.slot] = false;
    }
  }

  PoolPlan Plan() {
    StopIdle();
    LowerIdle();
    LookAgainForHabit();
    if (pool_.scale && pool_.scale->look_again) LookAgain(*pool_.scale->look_again);
    if (IsServer(pool_.mode)) plan_.rest = Rest();
    if (pool_.launcher == PoolSnapshot::Launcher::kDown) return std::move(plan_);
    if (pool_.now < pool_.retry_at) {
      // The back-off may be the last thing that happens: the spawner must go some time after it.
      if (Wanted() || pool_.spawner == SpawnerStep::kReady) LookAgain(pool_.retry_at);
      return std::move(plan_);
    }
    if (pool_.spawner == SpawnerStep::kNone) {
      if (Wanted()) Add(PoolActionKind::kBuildSpawner, 0, BuildReason());
      return std::move(plan_);
    }
    if (pool_.spawner == SpawnerStep::kReady) {
      if (pool_.mode == SandboxMode::kExec) PlanExec();
      if (IsServer(pool_.mode)) PlanServers();
      DropSpawnerIfUnused();
    }
    return std::move(plan_);
  }

 private:
  bool Draining() const { return pool_.phase == PoolPhase::kDraining; }
  uint32_t Min() const {
    if (Draining()) return 0;
    const uint32_t proof = pool_.phase == PoolPhase::kProving ? 1 : 0;
    return std::max(std::min(pool_.min, pool_.max), proof);
  }
  bool Wanted() const { return pool_.waiting > 0 || Min() > 0 || Expected(); }

  // --- the ladder
  static constexpr Duration kBetweenCalls = std::chrono::seconds(1);
  static constexpr Duration kScheduledRest = std::chrono::hours(1);

  Stage StageAfter(Duration idle) const {
    return pool_.use == PoolSnapshot::Use::kNone ? Stage() : StageInUse(idle);
  }
  Stage StageInUse(Duration idle) const {
    const Stage stage = StageAt(idle, pool_.warmth, pool_.descent, pool_.ladder);
    // Where nothing can be frozen a habit of pauses must not end a server between two calls.
    const bool early = idle < std::min(pool_.warmth.from, kBetweenCalls);
    if (!early || pool_.ladder[Rung::kFrozen].offered) return stage;
    return {Rung::kWarm, std::min(pool_.warmth.from, kBetweenCalls), Stage::Cause::kJustUsed};
  }
  Stage StageOf(const InstanceSnapshot& instance) const {
    return StageAfter(pool_.now - instance.idle_since);
  }
  // How long an instance stays as it is after a call.
  std::optional<Duration> Rest() const {
    const Stage stage = StageInUse(Duration::zero());
    return stage.rung == Rung::kWarm ? stage.until : Duration::zero();
  }
  Duration SinceUsed() const { return pool_.now - pool_.last_used; }
  // A habit says that a call comes, and how soon: what is not there then is brought up.
  bool HasHabit() const {
    return pool_.phase == PoolPhase::kActive && pool_.ahead != PoolSnapshot::Ahead::kNone &&
           pool_.use == PoolSnapshot::Use::kInUse && pool_.warmth.from > Duration::zero() &&
           pool_.unused_since.has_value();
  }
  bool Expected() const {
    if (!HasHabit()) return false;
    return StageAfter(pool_.now - *pool_.unused_since).cause == Stage::Cause::kCallExpected;
  }
  void LookAgainForHabit() {
    if (!HasHabit()) return;
    const TimePoint due = *pool_.unused_since + pool_.warmth.from;
    if (pool_.now < due) LookAgain(due);
  }
  uint32_t ParkedTarget() const {
    if (Draining()) return 0;
    if (pool_.ahead == PoolSnapshot::Ahead::kNone) return Min();
    if (Min() > 0) return std::max(pool_.parked, Min());
    return StageAfter(SinceUsed()).rung >= Rung::kParked ? pool_.parked : 0;
  }

  using Urgency = PoolAction::Urgency;
  void Add(PoolActionKind kind, uint16_t slot, std::string reason,
           Urgency urgency = Urgency::kNow) {
    plan_.actions.push_back({kind, slot, std::move(reason), urgency});
  }
  void LookAgain(TimePoint when) {
    if (!plan_.look_again || when < *plan_.look_again) plan_.look_again = when;
  }
  std::optional<uint16_t> TakeSlot() {
    const auto it = std::find(free_.begin(), free_.end(), true);
    if (it == free_.end()) return std::nullopt;
    *it = false;
    return static_cast<uint16_t>(it - free_.begin());
  }

  std::string BuildReason() const {
    if (pool_.waiting > 0) return "builds the spawner: " + Calls(pool_.waiting) + " waiting";
    if (pool_.phase == PoolPhase::kProving)
      return "builds the spawner: a new version proves itself";
    if (Min() == 0) return "builds the spawner: a call is expected";
    return "builds the spawner: scale.min is " + std::to_string(Min());
  }

  void PlanExec() {
    const uint32_t live = n_.running + n_.ending;
    const uint32_t served = n_.parking + n_.parked;
    uint32_t starts = pool_.waiting > served ? pool_.waiting - served : 0;
    starts = std::min(starts, pool_.max > live ? pool_.max - live : 0);
    for (uint32_t i = 0; i < starts; ++i) {
      const auto slot = TakeSlot();
      if (!slot) return;
      Add(PoolActionKind::kStartForCall, *slot,
          "starts an instance: " + Calls(pool_.waiting - i) + " waiting and none parked");
    }
    const bool proving = pool_.phase == PoolPhase::kProving;
    const bool later = pool_.refill == PoolSnapshot::Refill::kLater || pool_.waiting > 0;
    if (later && !proving) return;
    for (uint32_t have = served; have < ParkedTarget(); ++have) {
      const auto slot = TakeSlot();
      if (!slot) return;
      Add(PoolActionKind::kPark, *slot,
          "parks an instance: " + std::to_string(have) + " of " + std::to_string(ParkedTarget()) +
              " ready",
          have < Min() ? Urgency::kNow : Urgency::kAhead);
    }
  }

  void PlanServers() {
    // A call that waits beside a frozen one waits for the memory to thaw it.
    const uint32_t coming = (n_.starting + n_.frozen) * pool_.concurrency;
    uint32_t live = n_.starting + n_.warm;  // an ending one takes no calls, and may take its time
    uint32_t starts = 0;
    if (pool_.waiting > coming) {
      starts = (pool_.waiting - coming + pool_.concurrency - 1) / pool_.concurrency;
    }
    for (; starts > 0 && live < pool_.max; --starts, ++live) {
      const auto slot = TakeSlot();
      if (!slot) return EndAtOnce(starts);
      Add(PoolActionKind::kStart, *slot,
          "starts an instance: " + Calls(pool_.waiting) + " waiting, " +
              std::to_string(n_.warm + n_.starting) + " of " + std::to_string(pool_.max) +
              " instances live");
    }
    for (; live < std::min(Min(), pool_.max); ++live) {
      const auto slot = TakeSlot();
      if (!slot) return;
      Add(PoolActionKind::kStart, *slot,
          pool_.phase == PoolPhase::kProving
              ? "starts an instance: a new version proves itself"
              : "starts an instance: scale.min is " + std::to_string(Min()));
    }
    const bool ahead = pool_.ahead != PoolSnapshot::Ahead::kNone;
    for (; ahead && live < std::min(AskedByLoad(), pool_.max); ++live) {
      const auto slot = TakeSlot();
      if (!slot) return;
      Add(PoolActionKind::kStart, *slot, "starts an instance: " + Why(*pool_.scale),
          Urgency::kAhead);
    }
    if (live > 0 || !Expected()) return;
    // There may be no memory for it: then nothing else happens before the spawner is to go.
    const Stage stage = StageAfter(pool_.now - *pool_.unused_since);
    if (stage.until) LookAgain(*pool_.unused_since + *stage.until);
    const auto slot = TakeSlot();
    if (!slot) return;
    Add(PoolActionKind::kStart, *slot,
        "starts an instance: a call is expected; " + Why(pool_.warmth), Urgency::kAhead);
  }

  // While calls come: what they were a minute ago brings nothing back. For more than one they need
  // not be open in this very moment.
  uint32_t AskedByLoad() const {
    if (!pool_.scale || Draining() || pool_.use != PoolSnapshot::Use::kInUse) return 0;
    const bool lately = pool_.unused_since && pool_.now - *pool_.unused_since < kLately;
    return Open() > 0 || (lately && pool_.scale->wanted > 1) ? pool_.scale->wanted : 0;
  }

  uint32_t Open() const {
    uint32_t open = pool_.waiting;
    for (const InstanceSnapshot& instance : pool_.instances) open += instance.open_calls;
    return open;
  }

  // A call that waits for a slot does not wait for a stopped instance's grace as well.
  void EndAtOnce(uint32_t wanted) {
    for (const InstanceSnapshot& instance : pool_.instances) {
      if (wanted == 0) return;
      if (instance.step != InstanceStep::kEnding || instance.open_calls > 0) continue;
      Add(PoolActionKind::kStop, instance.slot, "ends an instance at once: a call needs its slot");
      --wanted;
    }
  }

  // Idle ones that may go, longest idle first.
  void StopIdle() {
    if (pool_.waiting > 0) return;
    std::vector<InstanceSnapshot> idle;
    for (const InstanceSnapshot& instance : pool_.instances) {
      if (IsQuiet(instance)) idle.push_back(instance);
    }
    std::sort(idle.begin(), idle.end(), [](const auto& a, const auto& b) {
      return a.idle_since != b.idle_since ? a.idle_since < b.idle_since : a.slot < b.slot;
    });
    const bool exec = pool_.mode == SandboxMode::kExec;
    uint32_t have = exec ? n_.parked + n_.parking : n_.warm + n_.starting;
    // The last one goes step by step, whatever the load says.
    const uint32_t asked = AskedByLoad() > 1 ? AskedByLoad() : 0;
    const uint32_t keep = exec ? ParkedTarget() : std::max(Min(), asked);
    if (!exec && keep > Min() && pool_.unused_since) LookAgain(*pool_.unused_since + kLately);
    for (const InstanceSnapshot& instance : idle) {
      if (have <= keep) break;
      if (pool_.scale && have > std::max<uint32_t>(pool_.scale->wanted, 1) && !Draining()) {
        Add(PoolActionKind::kStop, instance.slot, "stops an instance: " + Why(*pool_.scale));
        --have;
        continue;
      }
      // Parked ones were never used: they go when the function is out of use, or fewer are wanted.
      const Stage stage = exec ? Stage{} : StageOf(instance);
      if (!Draining() && stage.rung != Rung::kCold) {
        if (stage.until) LookAgain(instance.idle_since + *stage.until);
        continue;
      }
      Add(PoolActionKind::kStop, instance.slot, StopReason(stage));
      --have;
    }
    // Also with none: the one that is to be parked may find no memory, or fail.
    if (!exec || Min() > 0 || Draining()) return;
    const Stage stage = StageAfter(SinceUsed());
    if (stage.until) LookAgain(pool_.last_used + *stage.until);
  }
  std::string StopReason(const Stage& stage) const {
    if (Draining()) return "stops an instance: its version is being retired";
    if (pool_.mode == SandboxMode::kExec && ParkedTarget() > 0) {
      return "stops a parked instance: fewer wanted";
    }
    if (pool_.use == PoolSnapshot::Use::kNone) return "stops an instance: none is wanted";
    if (stage.cause == Stage::Cause::kNoCallYet) {
      return "stops an instance: no call is expected before " + FormatDuration(pool_.warmth.from) +
             " without one";
    }
    return "stops an instance: idle for " + FormatDuration(LongestIdle());
  }
  // After which it is cold.
  Duration LongestIdle() const {
    Duration longest = pool_.warmth.until;
    if (pool_.ladder[Rung::kParked].offered) {
      longest = std::max(longest, pool_.descent.parked_for);
    }
    if (pool_.ladder[Rung::kReclaimed].offered) {
      longest = std::max(longest, pool_.descent.reclaimed_for);
    }
    return longest;
  }

  // No background work between requests. Not while a call waits: it may be for one of these.
  void LowerIdle() {
    if (!pool_.ladder[Rung::kFrozen].offered || Draining() || pool_.waiting > 0) return;
    for (const InstanceSnapshot& instance : pool_.instances) {
      if (Stops(instance.slot)) continue;
      if (instance.step == InstanceStep::kFrozen) PushOut(instance);
      if (instance.step != InstanceStep::kWarm || instance.open_calls > 0) continue;
      const Duration freeze_after = pool_.descent.freeze_after;
      const TimePoint due = instance.idle_since + freeze_after;
      if (pool_.now < due || pool_.phase == PoolPhase::kProving) {
        LookAgain(due);
        continue;
      }
      Add(PoolActionKind::kFreeze, instance.slot,
          "freezes an instance: idle for " + FormatDuration(freeze_after));
    }
  }
  // Where no call is expected soon its pages are worth more to others.
  void PushOut(const InstanceSnapshot& instance) {
    if (!pool_.ladder[Rung::kReclaimed].offered ||
        instance.pages == InstanceSnapshot::Pages::kAsked) {
      return;
    }
    const Stage stage = StageOf(instance);
    if (stage.rung > Rung::kReclaimed) {
      if (stage.until) LookAgain(instance.idle_since + *stage.until);
      return;
    }
    Add(PoolActionKind::kReclaim, instance.slot,
        "pushes an instance's pages out: " +
            (stage.cause == Stage::Cause::kNoCallYet
                 ? "no call is expected yet"
                 : "idle for " + FormatDuration(pool_.warmth.until)));
  }
  bool Stops(uint16_t slot) const {
    return std::any_of(plan_.actions.begin(), plan_.actions.end(),
                       [slot](const PoolAction& action) {
                         return action.kind == PoolActionKind::kStop && action.slot == slot;
                       });
  }

  // What a schedule wants next month is built again by then.
  Duration SpawnerRest() const {
    const bool scheduled = pool_.warmth.source == Warmth::Source::kSchedule;
    return scheduled ? std::min(pool_.warmth.until, kScheduledRest) : pool_.warmth.until;
  }

  void DropSpawnerIfUnused() {
    if (!plan_.actions.empty() || !pool_.instances.empty() || Wanted()) return;
    // Proven and never called, or sent away: half as long.
    const Duration unused = SpawnerRest() * (pool_.use == PoolSnapshot::Use::kNone ? 1 : 2);
    const TimePoint due = pool_.last_used + unused;
    if (!Draining() && pool_.now < due) {
      LookAgain(due);
      return;
    }
    Add(PoolActionKind::kDropSpawner, 0,
        Draining() ? "drops the spawner: its version is retired"
                   : "drops the spawner: unused for " + FormatDuration(unused));
  }

  const PoolSnapshot& pool_;
  Counts n_;
  std::vector<bool> free_;
  PoolPlan plan_;
};

}  // namespace

PoolPlan PlanPool(const PoolSnapshot& pool) { return Planner(pool).Plan(); }

Duration StartBackOff(uint32_t failures) {
  Duration wait = std::chrono::milliseconds(100);
  for (uint32_t i = 1; i < failures && wait < std::chrono::seconds(10); ++i) wait *= 2;
  return std::min<Duration>(wait, std::chrono::seconds(10));
}

Duration NextFreezePause(Duration before) {
  if (before == Duration::zero()) return std::chrono::milliseconds(100);
  return std::min<Duration>(2 * before, std::chrono::hours(1));
}

uint32_t WaitingLimit(const PoolSnapshot& pool, uint32_t queue) {
  const Counts n = Count(pool);
  const uint32_t there = pool.mode == SandboxMode::kExec ? n.running + n.ending : n.warm;
  return queue + (pool.max > there ? pool.max - there : 0) * pool.concurrency;
}

}  // namespace pulga
