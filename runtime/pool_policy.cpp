#include "runtime/pool_policy.h"

#include <algorithm>

#include "base/units.h"

namespace pulga {
namespace {

struct Counts {
  uint32_t parking = 0, parked = 0, starting = 0, warm = 0, running = 0, ending = 0;
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
      if (pool_.mode == SandboxMode::kHttp) PlanHttp();
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
  bool Wanted() const { return pool_.waiting > 0 || Min() > 0; }
  bool InUse() const { return pool_.now - pool_.last_used < pool_.idle; }
  uint32_t ParkedTarget() const {
    if (Draining()) return 0;
    if (Min() > 0) return std::max(pool_.parked, Min());
    return InUse() ? pool_.parked : 0;
  }

  void Add(PoolActionKind kind, uint16_t slot, std::string reason) {
    plan_.actions.push_back({kind, slot, std::move(reason)});
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
              " ready");
    }
  }

  void PlanHttp() {
    const uint32_t coming = n_.starting * pool_.concurrency;
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
      const bool quiet =
          instance.step == InstanceStep::kWarm || instance.step == InstanceStep::kParked;
      if (quiet && instance.open_calls == 0) idle.push_back(instance);
    }
    std::sort(idle.begin(), idle.end(), [](const auto& a, const auto& b) {
      return a.idle_since != b.idle_since ? a.idle_since < b.idle_since : a.slot < b.slot;
    });
    const bool exec = pool_.mode == SandboxMode::kExec;
    uint32_t have = exec ? n_.parked + n_.parking : n_.warm + n_.starting;
    const uint32_t keep = exec ? ParkedTarget() : Min();
    for (const InstanceSnapshot& instance : idle) {
      if (have <= keep) break;
      // Parked ones were never used: they go when the function is out of use, or fewer are wanted.
      if (!exec && !Draining() && pool_.now - instance.idle_since < pool_.idle) {
        LookAgain(instance.idle_since + pool_.idle);
        break;
      }
      Add(PoolActionKind::kStop, instance.slot, StopReason());
      --have;
    }
    if (exec && have > 0 && Min() == 0 && InUse()) LookAgain(pool_.last_used + pool_.idle);
  }
  std::string StopReason() const {
    if (Draining()) return "stops an instance: its version is being retired";
    if (pool_.mode == SandboxMode::kExec && InUse()) return "stops a parked instance: fewer wanted";
    return "stops an instance: idle for " + FormatDuration(pool_.idle);
  }

  void DropSpawnerIfUnused() {
    if (!plan_.actions.empty() || !pool_.instances.empty() || Wanted()) return;
    const TimePoint due = pool_.last_used + 2 * pool_.idle;
    if (!Draining() && pool_.now < due) {
      LookAgain(due);
      return;
    }
    Add(PoolActionKind::kDropSpawner, 0,
        Draining() ? "drops the spawner: its version is retired"
                   : "drops the spawner: unused for " + FormatDuration(2 * pool_.idle));
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

uint32_t WaitingLimit(const PoolSnapshot& pool, uint32_t queue) {
  const Counts n = Count(pool);
  const uint32_t there = pool.mode == SandboxMode::kExec ? n.running + n.ending : n.warm;
  return queue + (pool.max > there ? pool.max - there : 0) * pool.concurrency;
}

}  // namespace pulga
