// Pool, fourth part: what it tells its policy, and how it carries out what that decides.
#include <algorithm>
#include <utility>

#include "runtime/pool.h"

namespace pulga {
namespace {

constexpr Duration kRefillDelay = std::chrono::milliseconds(1);  // parks after the reply has left
constexpr int kReclaimedLonger = 120;                            // than a server is kept warm
constexpr int kParkedLonger = 30;                                // than a server is kept warm
constexpr Duration kLookStep = std::chrono::seconds(2);          // at the load, while calls come
constexpr Duration kMeasureHolds = std::chrono::seconds(10);     // after it nothing is known of now

}  // namespace

uint32_t Pool::SlotsOf(const Version& version) {
  const ScaleSpec& scale = version.spec.scale;
  // exec: the parked ones beside those that run; server: one that is still ending.
  const uint32_t beside =
      version.mode == SandboxMode::kExec ? std::max(scale.parked, scale.min) : 1;
  return std::clamp<uint32_t>(scale.max + beside, 1, kMaxSlots);
}

PoolSnapshot Pool::Snapshot() const {
  PoolSnapshot snapshot;
  snapshot.mode = version_->mode;
  snapshot.phase = phase_;
  snapshot.spawner = spawner_step_;
  snapshot.launcher =
      context_.sandbox.available() ? PoolSnapshot::Launcher::kUp : PoolSnapshot::Launcher::kDown;
  snapshot.refill = refill_now_ ? PoolSnapshot::Refill::kNow : PoolSnapshot::Refill::kLater;
  // As SetPressure: at kShrink servers go, and none is brought up ahead; parked ones hold little.
  const PressureLevel none_from =
      IsServer(version_->mode) ? PressureLevel::kShrink : PressureLevel::kDelay;
  snapshot.ahead =
      context_.pressure >= none_from ? PoolSnapshot::Ahead::kNone : PoolSnapshot::Ahead::kParked;
  snapshot.min = min_;
  snapshot.max = version_->spec.scale.max;
  snapshot.concurrency = version_->mode == SandboxMode::kExec ? 1 : version_->concurrency;
  snapshot.parked = version_->spec.scale.parked;
  snapshot.slots = SlotsOf(*version_);
  snapshot.now = context_.clock.Now();
  PlanLadder(&snapshot);
  snapshot.use = use_;
  snapshot.unused_since = book_->idle_since();
  snapshot.last_used = last_used_;
  snapshot.retry_at = retry_at_;
  snapshot.waiting = static_cast<uint32_t>(waiting_.size());
  snapshot.instances.reserve(instances_.size());
  for (const auto& instance : instances_) {
    snapshot.instances.push_back(
        {instance->slot, instance->step, static_cast<uint32_t>(instance->calls.size()),
         instance->idle_since,
         instance->reclaim_asked ? InstanceSnapshot::Pages::kAsked : InstanceSnapshot::Pages::kIn});
  }
  return snapshot;
}

bool Pool::ScalesByTarget() const {
  return version_->spec.scale.target != 0 && version_->spec.scale.target < version_->concurrency;
}

bool Pool::ScalesByLoad() const {
  return ScalesByTarget() || rate_ != nullptr || meters_ != nullptr ||
         (sizer_ != nullptr && IsServer(version_->mode));
}

void Pool::LookAtLoad() {
  const TimePoint due = context_.clock.Now() + kLookStep;
  if (look_timer_ == 0 || look_at_ > due) LookAgainAt(due);
}

// Between calls, from the timer: what serves starts is about to change, and a start is no load.
void Pool::Measure() {
  if (!ScalesByLoad() || spawner_ == nullptr) return;
  const TimePoint now = context_.clock.Now();
  const Duration time = now - measured_;
  if (time < kLookStep / 2) return;
  measured_ = now;
  const bool by_cpu = version_->spec.scale.cpu_target != 0 || (sizer_ && sizer_->has_cpu);
  Duration used{0};
  for (const auto& instance : instances_) {
    if (instance->step != InstanceStep::kWarm) continue;
    const std::optional<InstanceCpu> cpu = by_cpu ? spawner_->Cpu(instance->slot) : std::nullopt;
    if (cpu && instance->cpu) used += std::max(cpu->used - instance->cpu->used, Duration::zero());
    NoteUse(*instance, cpu, time);
    instance->cpu = cpu;
  }
  if (meters_) meters_->cpu.Add(now, used);
  PlanSizes();
}

// By the function's load, whichever version has it. A scale.idle that was set is also how long
// fewer must have been enough: the autoscaler takes nothing away before that.
ScaleDecision Pool::DecideScale(const PoolSnapshot& snapshot) {
  const ScaleSpec& scale = version_->spec.scale;
  ScaleRules rules;
  rules.min = snapshot.min;
  rules.max = snapshot.max;
  rules.calls_per_instance = ScalesByTarget() ? scale.target : version_->concurrency;
  if (scale.cpu_target != 0) rules.cpu_target = scale.cpu_target / 100.0;
  if (scale.latency_target != Duration::zero()) rules.latency_target = scale.latency_target;
  rules.down_after = std::max(rules.down_after, scale.idle);
  LoadSnapshot load;
  load.now = snapshot.now;
  load.last_call = book_->idle_since().value_or(snapshot.now);
  load.stable_calls = book_->load().Average(snapshot.now, std::chrono::seconds(60));
  load.panic_calls = book_->load().Average(snapshot.now, std::chrono::seconds(6));
  if (rate_) {
    rules.rate_target = scale.rps_target;
    load.stable_rate = rate_->PerSecond(snapshot.now, std::chrono::seconds(60));
    load.panic_rate = rate_->PerSecond(snapshot.now, std::chrono::seconds(6));
  }
  load.waiting = snapshot.waiting;
  for (const InstanceSnapshot& instance : snapshot.instances) {
    if (instance.step != InstanceStep::kEnding) ++load.instances;
    load.under_way += instance.open_calls;
  }
  if (meters_) {
    load.latency = meters_->latency.Percentile(snapshot.now, scale.latency_percentile);
    const std::optional<double> cores = meters_->cpu.cores();
    const double each = size_.cpu_millis / 1000.0;
    const bool fresh = snapshot.now < measured_ + kMeasureHolds;
    if (fresh && cores && load.instances > 0 && each > 0)
      load.cpu = *cores / (each * load.instances);
  }
  return PlanScale(load, rules, &scale_state_);
}

Warmth Pool::PlannedWarmth() const {
  const Duration fixed = version_->spec.scale.idle;
  if (fixed == Duration::zero()) {
    const Warmth habit = book_->Habit(idle_);
    const std::optional<Duration> fire = NextFire();
    if (!fire) return habit;
    // Between its times others call it, whose habit counts.
    const Warmth planned = PlanWarmth(book_->habit(), KeepAliveRules(), fire);
    const Duration idle = context_.clock.Now() - *book_->idle_since();
    return idle >= std::min(habit.until, planned.from) || FollowsFire() ? planned : habit;
  }
  Warmth warmth;
  warmth.until = fixed;
  return warmth;
}

// One that came and brought no call is over: the next one counts.
std::optional<Duration> Pool::NextFire() const {
  using std::chrono::minutes;
  if (!schedule_ || !book_->idle_since()) return std::nullopt;
  const Duration idle = context_.clock.Now() - *book_->idle_since();
  const Duration now = context_.clock.WallTime().time_since_epoch();
  const Duration ended = now - idle;
  const Duration from = std::max(ended, now - KeepAliveRules().gone_after);
  const std::optional<int64_t> next = schedule_->next.NextAfter(from / minutes(1));
  if (!next) return std::nullopt;
  return minutes(*next) - ended;
}

bool Pool::FollowsFire() const {
  using std::chrono::minutes;
  const Duration idle = context_.clock.Now() - *book_->idle_since();
  const Duration ended = Duration(context_.clock.WallTime().time_since_epoch()) - idle;
  const std::optional<int64_t> fire =
      schedule_->last.NextAfter((ended - KeepAliveRules().gone_after) / minutes(1));
  return fire && minutes(*fire) <= ended;
}

// When a habit counts until then, nobody else looks.
std::optional<TimePoint> Pool::FireDue() const {
  const std::optional<Duration> fire = NextFire();
  if (!fire || version_->spec.scale.idle != Duration::zero()) return std::nullopt;
  const TimePoint due = *book_->idle_since() + *fire - KeepAliveRules().ready_before;
  return due > context_.clock.Now() ? std::optional<TimePoint>(due) : std::nullopt;
}

void Pool::PlanLadder(PoolSnapshot* snapshot) const {
  const ScaleSpec& scale = version_->spec.scale;
  const bool server = IsServer(version_->mode);
  const bool freezes =
      server && snapshot->now >= freeze_again_at_ && scale.freeze_after != kNeverFreeze;
  snapshot->warmth = PlannedWarmth();
  snapshot->ladder = book_->costs().MakeLadder(
      server ? CostBook::Kind::kServer : CostBook::Kind::kProgram, limit_bytes());
  snapshot->ladder[Rung::kFrozen].offered = freezes;
  snapshot->ladder[Rung::kReclaimed].offered = freezes && can_reclaim_;
  snapshot->ladder[Rung::kParked].offered = !server;
  if (freezes)
    snapshot->descent.freeze_after = std::min(scale.freeze_after, snapshot->warmth.until);
  // A sandbox costs little: where nothing else is asked for, it outlives a server.
  snapshot->descent.reclaimed_for =
      scale.idle == Duration::zero() ? kReclaimedLonger * idle_ : Duration::zero();
  snapshot->descent.parked_for =
      scale.idle == Duration::zero() ? kParkedLonger * idle_ : Duration::zero();
}

void Pool::Decide(std::string decision) {
  using std::chrono::duration_cast;
  const auto wall = context_.clock.WallTime().time_since_epoch();
  book_->Decided(duration_cast<std::chrono::milliseconds>(wall).count(), decision);
  last_decision_ = std::move(decision);
}

void Pool::Evaluate() {
  if (evaluating_) {
    evaluate_again_ = true;
    return;
  }
  evaluating_ = true;
  Changed();
  for (int round = 0; round < 8; ++round) {  // what cannot settle waits for its next event
    evaluate_again_ = wants_memory_ = false;
    ServeWaiting();
    PoolSnapshot snapshot = Snapshot();
    if (IsServer(version_->mode) && phase_ == PoolPhase::kActive) {
      snapshot.scale = DecideScale(snapshot);
    }
    const PoolPlan plan = PlanPool(snapshot);
    for (const PoolAction& action : plan.actions) Apply(action);
    rest_ = plan.rest;
    LookAgainAt(plan.look_again);
    LookAgainAt(FireDue());
    if (snapshot.now < freeze_again_at_ && !instances_.empty()) LookAgainAt(freeze_again_at_);
    if (!wants_memory_) WantNoMore();
    if (!evaluate_again_) break;
  }
  evaluating_ = false;
  Changed();
  CheckProof();
  ArmQueueTimer();
  TellIfEmpty();
}

void Pool::Apply(const PoolAction& action) {
  const bool each_call =
      action.kind == PoolActionKind::kStartForCall || action.kind == PoolActionKind::kPark;
  each_call ? void(last_decision_ = action.reason) : Decide(action.reason);
  switch (action.kind) {
    case PoolActionKind::kBuildSpawner:
      return BuildSpawner();
    case PoolActionKind::kDropSpawner:
      return DropSpawner();
    case PoolActionKind::kStartForCall:
      return StartForCall(action.slot);
    case PoolActionKind::kStart:
      return StartServer(action.slot, action.urgency);
    case PoolActionKind::kPark:
      return Park(action.slot, action.urgency);
    case PoolActionKind::kStop:
      if (Instance* instance = Find(action.slot)) Stop(*instance);
      return;
    case PoolActionKind::kFreeze:
      if (Instance* instance = Find(action.slot)) Freeze(*instance);
      return;
    case PoolActionKind::kReclaim:
      if (Instance* instance = Find(action.slot)) Reclaim(*instance);
      return;
  }
}

void Pool::LookAgainAt(std::optional<TimePoint> when) {
  if (!when) return;
  if (look_timer_ != 0 && look_at_ <= *when) return;
  context_.loop.Cancel(look_timer_);
  look_at_ = *when;
  look_timer_ = context_.loop.CallAt(*when, [this] {
    const Notifier::Turn turn(context_.notifier);
    look_timer_ = 0;
    Measure();
    Evaluate();
    if (ScalesByLoad() && book_->open_calls() > 0) LookAtLoad();
  });
}

void Pool::RefillLater() {
  refill_now_ = false;
  if (refill_timer_ != 0) return;
  refill_timer_ = context_.loop.CallAfter(kRefillDelay, [this] {
    const Notifier::Turn turn(context_.notifier);
    refill_timer_ = 0;
    refill_now_ = true;
    Evaluate();
  });
}

}  // namespace pulga
