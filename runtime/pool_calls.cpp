// Pool, second part: the queue of calls, and how they get and give back instances.
#include <errno.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/units.h"
#include "runtime/pipe_io.h"
#include "runtime/pool.h"

namespace pulga {
namespace {

constexpr uint32_t kMaxTimeoutsInARow = 3;
constexpr Duration kExpiryStep = std::chrono::milliseconds(100);
constexpr Duration kSettleDelay = std::chrono::milliseconds(100);
constexpr uint32_t kPressureRetrySeconds = 10;  // a level does not fall sooner

const char* StepName(const Instance& instance) {
  switch (instance.step) {
    case InstanceStep::kParking:
    case InstanceStep::kStarting:
      return "starting";
    case InstanceStep::kParked:
      return "parked";
    case InstanceStep::kWarm:
      return instance.calls.empty() ? "warm" : "busy";
    case InstanceStep::kFrozen:
      return "frozen";
    case InstanceStep::kReclaimed:
      return "reclaimed";
    case InstanceStep::kRunning:
      return "busy";
    case InstanceStep::kEnding:
      return "draining";
  }
  return "";
}

}  // namespace

void Pool::Expect(Call& call) {
  call.pool = this;
  expected_.push_back(&call);
}

void Pool::Submit(Call& call) {
  if (!expected_.empty()) std::erase(expected_, &call);
  last_used_ = context_.clock.Now();
  use_ = PoolSnapshot::Use::kInUse;
  book_->OnCallBegun(last_used_);
  if (context_.room != nullptr) book_->room_clock = context_.room->clock();
  call.pool = this;
  if (rate_) rate_->OnCall(last_used_);
  if (ScalesByLoad()) LookAtLoad();
  if (waiting_.empty() && ServeOne(call)) return;
  if (call.ended()) return;
  if (limit_bytes() > context_.memory.total()) {
    call.facts = NeverFits();
    return call.Reject(kRejectMemory, 5);
  }
  if (last_used_ < retry_at_ && held_elsewhere_.empty() && !AnythingUsable() &&
      context_.sandbox.available()) {
    call.facts = BackOffFacts();
    return call.Fail(last_failure_, AfterCall::kCancelled, RetryAfterSeconds());
  }
  if (context_.pressure == PressureLevel::kShed) {
    call.facts.remark = context_.pressure_why;
    return call.Reject(kRejectPressure, kPressureRetrySeconds);
  }
  const ScaleSpec& scale = version_->spec.scale;
  if (waiting_.size() >= WaitingLimit(Snapshot(), scale.queue)) {
    return call.Reject(kRejectQueueFull, 1);
  }
  call.queue_deadline = context_.loop.Now() + scale.queue_wait;
  waiting_.push_back(&call);
  Evaluate();
}

bool Pool::TakesCalls(const Instance& server) const {
  return server.step == InstanceStep::kWarm && !server.closed &&
         server.calls.size() < version_->concurrency &&
         (server.channel == nullptr || server.channel->has_room());
}

// What is scaled by its load has none of them rest while others work: the one that has waited
// longest. Without that the first, so that the rest may go.
Instance* Pool::LeastBusy() const {
  Instance* best = nullptr;
  for (const auto& instance : instances_) {
    if (!TakesCalls(*instance)) continue;
    const bool better = best == nullptr || instance->calls.size() < best->calls.size() ||
                        (SpreadsCalls() && instance->calls.size() == best->calls.size() &&
                         instance->idle_since < best->idle_since);
    if (better) best = instance.get();
  }
  return best;
}

// A reclaimed one only where none is frozen.
Instance* Pool::Resting() const {
  Instance* reclaimed = nullptr;
  for (const auto& instance : instances_) {
    if (instance->step == InstanceStep::kFrozen) return instance.get();
    if (instance->step == InstanceStep::kReclaimed) reclaimed = instance.get();
  }
  return reclaimed;
}

bool Pool::SpreadsCalls() const {
  return ScalesByTarget() || rate_ != nullptr || meters_ != nullptr;
}

// Calls at once on each server before one that rests is thawed.
uint32_t Pool::CallsBeforeThaw() const {
  if (ScalesByTarget()) return version_->spec.scale.target;
  return SpreadsCalls() ? 1 : version_->concurrency;
}

Instance* Pool::FindUsable() const {
  if (IsServer(version_->mode)) {
    Instance* const warm = LeastBusy();
    return warm != nullptr ? warm : Resting();
  }
  const auto it = std::find_if(instances_.begin(), instances_.end(), [](const auto& instance) {
    return instance->step == InstanceStep::kParked;
  });
  return it == instances_.end() ? nullptr : it->get();
}

// Warm as it returns; null: none is free, or the call waits for memory, or has been told of it.
Instance* Pool::TakeServer(Call& call, StartKind* start) {
  Instance* const warm = LeastBusy();
  Instance* const resting = Resting();
  const bool enough = warm != nullptr && warm->calls.size() < CallsBeforeThaw();
  if (resting != nullptr && !enough) {
    const bool frozen = resting->step == InstanceStep::kFrozen;
    // Where another can take the call nothing is asked of anybody for this one.
    const bool fits =
        warm != nullptr ? GrowMemory(*resting, std::nullopt) : HaveMemory(call, *resting);
    if (fits && Thaw(*resting)) {
      *start = frozen ? StartKind::kFrozen : StartKind::kReclaimed;
      return resting;
    }
    if (fits) return TakeServer(call, start);  // that one has ended
  }
  if (warm == nullptr) return nullptr;
  // Who gets what others have used already waited for them, not for its start.
  *start = call.submitted < warm->ready && !warm->used ? StartKind::kCold : StartKind::kWarm;
  return warm;
}

bool Pool::ServeOne(Call& call) {
  if (IsServer(version_->mode)) {
    StartKind start = StartKind::kWarm;
    Instance* const server = TakeServer(call, &start);
    if (server != nullptr) Assign(call, *server, start);
    return server != nullptr;
  }
  Instance* instance = FindUsable();
  if (instance == nullptr) return false;
  const auto running = std::count_if(instances_.begin(), instances_.end(), [](const auto& other) {
    return other->step == InstanceStep::kRunning || other->step == InstanceStep::kEnding;
  });
  if (static_cast<uint32_t>(running) >= version_->spec.scale.max) return false;
  if (!HaveMemory(call, *instance)) return false;
  instance->step = InstanceStep::kRunning;
  RefillLater();
  Assign(call, *instance, StartKind::kParked);
  return true;
}

// What it held parked or frozen becomes its limit, or the call waits.
bool Pool::HaveMemory(Call& call, Instance& instance) {
  if (GrowMemory(instance, call.submitted)) return true;
  const uint64_t more = limit_bytes() - instance.memory.bytes();
  if (NoMemory(more, call.submitted, Need::kGrowth)) return false;
  call.facts = NeverFits();
  call.Reject(kRejectMemory, 5);
  return false;
}

void Pool::ServeWaiting() {
  while (!waiting_.empty()) {
    Call* call = waiting_.front();
    waiting_.pop_front();
    if (ServeOne(*call)) continue;
    if (!call->ended()) waiting_.push_front(call);
    return;
  }
}

void Pool::Assign(Call& call, Instance& instance, StartKind start) {
  instance.calls.push_back(&call);
  Changed();
  call.instance = &instance;
  call.OnInstance(instance, start);
}

Status Pool::Launch(Instance& instance, const Call& call, StartOptions options) {
  PULGA_ASSIGN_OR_RETURN(FunctionPipe err, MakeOutputPipe());
  options.stderr_fd = std::move(err.theirs);
  instance.stderr_log =
      std::make_unique<LogPipe>(context_.loop, context_.clock, context_.logs,
                                SourceOf(instance, call.request().call_id, "stderr"));
  PULGA_RETURN_IF_ERROR(instance.stderr_log->Open(std::move(err.ours)));
  if (spawner_ == nullptr) return Error{Code::kUnavailable, 0, "the spawner is gone"};
  instance.launched = context_.clock.Now();
  // `ready` is set exactly for what was parked first.
  if (instance.ready != TimePoint()) return spawner_->Wake(instance.slot, std::move(options));
  return spawner_->Start(instance.slot, std::move(options));
}

void Pool::LaunchFailed(Call& call, Instance& instance, const Error& error) {
  call.instance = nullptr;
  instance.Forget(&call);
  if (instance.ready == TimePoint()) {
    Remove(instance);  // it was never accepted, so it never exits
  } else {
    Kill(instance);
  }
  // The spawner is dead and OnGone will say so: the next one can take the call.
  const bool lost = error.code == Code::kUnavailable && error.sys_errno != EAGAIN;
  if (error.code == Code::kUnavailable && call.Movable() &&
      (!call.moved_once || (lost && context_.loop.Now() < call.queue_deadline))) {
    return Requeue(call);
  }
  if (lost) {
    call.facts.remark = "the sandbox above it ended: " + error.message;
    const char* step = context_.sandbox.available() ? kSpawnerLost : kLauncherLost;
    return call.Fail({OutcomeKind::kSetupFailed, 0, step}, AfterCall::kDead);
  }
  const Outcome outcome = {OutcomeKind::kSetupFailed, error.sys_errno, "start"};
  FailureFacts facts;
  facts.remark = error.message;
  NoteFailure(outcome, facts);
  call.facts = facts;
  call.Fail(outcome, AfterCall::kDead);
}

SlotTimes Pool::Times(const Instance& instance) const {
  return spawner_ == nullptr ? SlotTimes() : spawner_->Times(instance.slot);
}

void Pool::Release(Call& call, AfterCall after) {
  Instance* instance = std::exchange(call.instance, nullptr);
  call.pool = nullptr;
  last_used_ = context_.clock.Now();
  use_ = PoolSnapshot::Use::kInUse;
  const bool submitted = expected_.empty() || std::erase(expected_, &call) == 0;
  if (submitted) book_->OnCallEnded(last_used_);
  Changed();
  if (instance == nullptr) {
    std::erase(waiting_, &call);
    if (waiting_.empty()) {
      CallsGone();
      LookAgainAt(last_used_ + kSettleDelay);  // nothing else may happen here any more
    }
    return TellIfEmpty();
  }
  instance->Forget(&call);
  if (meters_ && call.assigned() != TimePoint() && call.ShowsLatency() &&
      (after == AfterCall::kReturn || after == AfterCall::kTimedOut)) {
    meters_->latency.Add(last_used_, last_used_ - call.assigned());
  }
  if (after == AfterCall::kDead) return;
  if (IsServer(version_->mode)) {
    ReleaseServer(*instance, after);
  } else {
    ReleaseProgram(*instance, after);
  }
}

void Pool::ReleaseProgram(Instance& instance, AfterCall after) {
  if (after == AfterCall::kTerminate) {
    Terminate(instance);
  } else {
    Kill(instance);
  }
}

void Pool::ReleaseServer(Instance& instance, AfterCall after) {
  instance.used = true;
  NoteRefusals();
  if (instance.calls.empty()) instance.idle_since = last_used_;
  if (instance.step == InstanceStep::kEnding) {
    if (instance.calls.empty()) CloseWays(instance);  // there is nothing to say any more
    return;
  }
  if (instance.calls.empty() && context_.room != nullptr) context_.room->NoteIdle();
  if (instance.closed && instance.calls.empty()) {
    Terminate(instance);
    return Evaluate();
  }
  if (after == AfterCall::kReturn) {
    instance.timeouts_in_a_row = 0;
    if (failures_ != 0 || !trouble_.empty()) NoteSuccess();
  } else if (after == AfterCall::kTimedOut && ++instance.timeouts_in_a_row >= kMaxTimeoutsInARow) {
    Decide("stops an instance: " + std::to_string(kMaxTimeoutsInARow) +
           " calls in a row timed out on it");
    Remark(last_decision_);
    Terminate(instance);
    return Evaluate();
  }
  if (!waiting_.empty() || phase_ != PoolPhase::kActive) {
    Evaluate();
  } else if (instance.calls.empty() && rest_) {
    if (look_timer_ == 0 || look_at_ > last_used_ + *rest_) LookAgainAt(last_used_ + *rest_);
  }
}

void Pool::Requeue(Call& call) {
  // It may have been served so far without ever waiting.
  if (!std::exchange(call.moved_once, true)) {
    call.queue_deadline = context_.loop.Now() + version_->spec.scale.queue_wait;
  }
  call.instance = nullptr;
  call.pool = this;
  call.OnMoved();
  waiting_.push_front(&call);
}

// A call whose instance died before it was given anything goes on, once, or for as long as it may
// wait when it was not the instance's doing; others end.
void Pool::MoveOrEnd(Call& call, Instance& instance, const InstanceExit& exit,
                     const SlotTimes& times) {
  const bool exec = version_->mode == SandboxMode::kExec;
  const bool lost = exit.setup_step == kLauncherLost || exit.setup_step == kSpawnerLost;
  const bool untouched = (lost || exit.setup_step.empty()) && (!exec || times.exec == TimePoint());
  const bool again = lost && context_.loop.Now() < call.queue_deadline;
  if (untouched && (!call.moved_once || again) && call.Movable()) return Requeue(call);
  if (!exec) book_->OnCallEnded(context_.clock.Now());  // it leaves its pool here, unreleased
  call.OnInstanceExit(instance, exit, times);
}

void Pool::FailWaiting(const Outcome& outcome, const FailureFacts& facts, uint32_t retry_after_s) {
  for (Call* call : std::exchange(waiting_, {})) {
    call->facts = facts;
    call->Fail(outcome, AfterCall::kCancelled, retry_after_s);
  }
}

void Pool::EndAllCalls() {
  for (Call* call : std::exchange(waiting_, {})) call->Reject(kRejectShuttingDown, 1);
  // Release finds them in there: none of them has begun.
  for (Call* call : std::vector<Call*>(expected_)) call->Reject(kRejectShuttingDown, 1);
  std::vector<Call*> open;
  for (const auto& instance : instances_) {
    open.insert(open.end(), instance->calls.begin(), instance->calls.end());
  }
  for (Call* call : open) EndOpen(*call);
}

// One that may have run must not read like one that did not: whoever sends it again has to know.
void Pool::EndOpen(Call& call) {
  if (IsServer(version_->mode) && call.Movable()) {
    return call.Reject(kRejectShuttingDown, 1);  // its server had yet to listen
  }
  call.facts.remark =
      "the daemon, or this version of the function, was stopped before the call had ended; it may "
      "have run: send it again only if running twice does no harm";
  call.Fail({OutcomeKind::kSignaled, SIGKILL, ""}, AfterCall::kCancelled);
}

// How many of the first waiting calls something already on its way will serve.
uint32_t Pool::WaitingCovered() const {
  if (spawner_step_ == SpawnerStep::kBuilding)
    return version_->spec.scale.max * version_->concurrency;
  uint32_t covered = 0;
  for (const auto& instance : instances_) {
    if (instance->step == InstanceStep::kStarting) covered += version_->concurrency;
    if (instance->step == InstanceStep::kParking) ++covered;
  }
  return covered;
}

void Pool::ArmQueueTimer() {
  if (waiting_.empty() || queue_timer_ != 0) return;
  const TimePoint next = std::max(waiting_.front()->queue_deadline,
                                  context_.loop.Now() + std::chrono::milliseconds(1));
  queue_timer_ = context_.loop.CallAt(next, [this] {
    const Notifier::Turn turn(context_.notifier);
    queue_timer_ = 0;
    ExpireWaiting();
  });
}

// queue_wait is for a place, not for a start under way: that has start_timeout.
void Pool::ExpireWaiting() {
  const TimePoint now = context_.loop.Now();
  const size_t covered = WaitingCovered();
  std::vector<Call*> expired;
  size_t before = 0;
  for (Call* call : waiting_) {
    const bool starts = before++ < covered;
    const Duration grace = starts ? version_->spec.limits.start_timeout : Duration::zero();
    if (call->queue_deadline + grace <= now) expired.push_back(call);
  }
  const bool down = !context_.sandbox.available() || spawner_step_ != SpawnerStep::kReady;
  for (Call* call : expired) {
    if (!held_elsewhere_.empty()) call->facts.remark = held_elsewhere_;
    if (!down && denied_bytes_ > 0) {
      call->Reject(kRejectMemory, 5);
    } else {
      call->Reject(down ? kRejectUnavailable : kRejectQueueTimeout, 1);
    }
  }
  if (waiting_.empty()) {
    CallsGone();
    return TellIfEmpty();
  }
  const TimePoint next = std::max(waiting_.front()->queue_deadline, now + kExpiryStep);
  queue_timer_ = context_.loop.CallAt(next, [this] {
    const Notifier::Turn turn(context_.notifier);
    queue_timer_ = 0;
    ExpireWaiting();
  });
}

void Pool::DescribeLadder(FunctionActivity* activity) const {
  PoolSnapshot snapshot;
  PlanLadder(&snapshot);
  const bool server = IsServer(version_->mode);
  const Duration parked = std::max(snapshot.warmth.until, snapshot.descent.parked_for);
  activity->keep_alive =
      server ? Why(snapshot.warmth) : "parked for " + FormatDuration(parked) + " after a call";
  for (size_t i = kRungs; i-- > 0;) {
    const auto rung = static_cast<Rung>(i);
    if (!snapshot.ladder[rung].offered || (rung == Rung::kWarm && !server)) continue;
    const ObservedCost& seen = book_->costs().at(rung);
    activity->costs.push_back({RungName(rung), snapshot.ladder[rung], seen.starts, seen.sights});
  }
}

std::optional<Duration> Pool::CpuUsed(uint16_t slot) const {
  if (spawner_ == nullptr || !IsServer(version_->mode)) return std::nullopt;
  const std::optional<InstanceCpu> cpu = spawner_->Cpu(slot);
  if (!cpu) return std::nullopt;
  const auto before = cpu_before_.find(slot);
  if (before == cpu_before_.end()) return cpu->used;
  return std::max(cpu->used - before->second, Duration::zero());
}

void Pool::DescribeInstances(FunctionActivity* activity) const {
  const TimePoint now = context_.clock.Now();
  for (const auto& instance : instances_) {
    InstanceStatus status;
    status.slot = instance->slot;
    status.step = StepName(*instance);
    status.open_calls = static_cast<uint32_t>(instance->calls.size());
    if (spawner_ != nullptr) status.memory.total = spawner_->MemoryBytes(instance->slot);
    status.cpu_used = CpuUsed(instance->slot);
    using std::chrono::duration_cast;
    status.children = instance->children;
    status.age_ms = duration_cast<std::chrono::milliseconds>(now - instance->created).count();
    activity->instances.push_back(std::move(status));
  }
  activity->queued += static_cast<uint32_t>(waiting_.size());
}

void Pool::Glance(FunctionActivity* activity) const {
  DescribeInstances(activity);
  if (phase_ == PoolPhase::kDraining) return;
  activity->last_decision = last_decision_;
  activity->scaled = scaled_;
  activity->trouble = context_.sandbox.available() ? trouble_ : "the launcher is restarting";
}

void Pool::Describe(FunctionActivity* activity) const {
  const size_t others = activity->instances.size();
  Glance(activity);
  for (size_t i = 0; spawner_ != nullptr && i < instances_.size(); ++i) {
    activity->instances[others + i].memory = spawner_->Memory(instances_[i]->slot);
  }
  if (phase_ == PoolPhase::kDraining) return;
  activity->size = in_force_.memory_bytes != 0 ? in_force_ : size_;
  DescribeLadder(activity);
  activity->warnings = warnings_;
  activity->isolation = spawner_ != nullptr ? spawner_->layers() : Unpacked(isolation_);
}

}  // namespace pulga
