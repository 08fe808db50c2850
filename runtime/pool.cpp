#include "runtime/pool.h"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "runtime/pipe_io.h"

namespace pulga {
namespace {

constexpr Duration kRefillDelay = std::chrono::milliseconds(1);  // parks after the reply has left
constexpr uint32_t kMaxIdleConnections = 64;

uint32_t SlotsOf(const Version& version) {
  const ScaleSpec& scale = version.spec.scale;
  // exec: the parked ones beside those that run; http: one that is still ending.
  const uint32_t beside =
      version.mode == SandboxMode::kExec ? std::max(scale.parked, scale.min) : 1;
  return std::clamp<uint32_t>(scale.max + beside, 1, kMaxSlots);
}

VersionSpec SpecOf(const Version& version, uint64_t id) {
  VersionSpec spec;
  spec.version_id = id;
  spec.layers = version.layers;
  spec.mode = version.mode;
  spec.init = version.spec.init == InitChoice::kNone ? InitKind::kNone : InitKind::kPulga;
  spec.argv = version.argv;
  spec.env = version.env;
  spec.user = version.user;
  spec.working_dir = version.working_dir.empty() ? "/" : version.working_dir;
  spec.hostname = version.key.name;
  spec.limits = version.spec.sandbox;
  spec.slots = static_cast<uint16_t>(SlotsOf(version));
  return spec;
}

LogSource SourceOf(const Version& version, std::string call_id, std::string stream) {
  return {version.key, version.number, std::move(call_id), std::move(stream)};
}

}  // namespace

Outcome OutcomeOf(const InstanceExit& exit) {
  if (!exit.setup_step.empty()) {
    return {OutcomeKind::kSetupFailed, exit.sys_errno, exit.setup_step};
  }
  const int status = exit.wait_status;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {OutcomeKind::kOk, 0, ""};
  if (exit.oom_killed) return {OutcomeKind::kOomKilled, 0, ""};
  if (WIFEXITED(status)) return {OutcomeKind::kExited, WEXITSTATUS(status), ""};
  if (WTERMSIG(status) == SIGSYS) return {OutcomeKind::kSyscallDenied, 0, ""};
  return {OutcomeKind::kSignaled, WTERMSIG(status), ""};
}

Pool::Pool(RuntimeContext& context, VersionPtr version, uint64_t id, Duration idle,
           std::function<void()> on_empty)
    : context_(context),
      id_(id),
      version_(std::move(version)),
      idle_(version_->spec.scale.idle > Duration::zero() ? version_->spec.scale.idle : idle),
      on_empty_(std::move(on_empty)),
      min_(version_->spec.scale.min),
      last_used_(context.clock.Now()) {}

Pool::~Pool() {
  on_empty_ = nullptr;
  phase_ = PoolPhase::kDraining;
  EndAllCalls();
  EndProof(Error{Code::kUnavailable, 0, "the version was dropped before it was ready"});
  for (const auto& instance : instances_) Clear(*instance);
  for (const EventLoop::TimerId timer :
       {look_timer_, queue_timer_, refill_timer_, drain_timer_, empty_timer_, bury_timer_}) {
    context_.loop.Cancel(timer);
  }
}

// --- deciding

PoolSnapshot Pool::Snapshot() const {
  PoolSnapshot snapshot;
  snapshot.mode = version_->mode;
  snapshot.phase = phase_;
  snapshot.spawner = spawner_step_;
  snapshot.launcher =
      context_.sandbox.available() ? PoolSnapshot::Launcher::kUp : PoolSnapshot::Launcher::kDown;
  snapshot.refill = refill_now_ ? PoolSnapshot::Refill::kNow : PoolSnapshot::Refill::kLater;
  snapshot.min = min_;
  snapshot.max = version_->spec.scale.max;
  snapshot.concurrency = version_->mode == SandboxMode::kExec ? 1 : version_->concurrency;
  snapshot.parked = version_->spec.scale.parked;
  snapshot.slots = SlotsOf(*version_);
  snapshot.idle = idle_;
  snapshot.now = context_.clock.Now();
  snapshot.last_used = last_used_;
  snapshot.retry_at = retry_at_;
  snapshot.waiting = static_cast<uint32_t>(waiting_.size());
  snapshot.instances.reserve(instances_.size());
  for (const auto& instance : instances_) {
    snapshot.instances.push_back({instance->slot, instance->step,
                                  static_cast<uint32_t>(instance->calls.size()),
                                  instance->idle_since});
  }
  return snapshot;
}

void Pool::Evaluate() {
  if (evaluating_) {
    evaluate_again_ = true;
    return;
  }
  evaluating_ = true;
  for (int round = 0; round < 8; ++round) {  // what cannot settle waits for its next event
    evaluate_again_ = false;
    ServeWaiting();
    const PoolPlan plan = PlanPool(Snapshot());
    for (const PoolAction& action : plan.actions) Apply(action);
    LookAgainAt(plan.look_again);
    if (!evaluate_again_) break;
  }
  evaluating_ = false;
  CheckProof();
  ArmQueueTimer();
  TellIfEmpty();
}

void Pool::Apply(const PoolAction& action) {
  last_decision_ = action.reason;
  switch (action.kind) {
    case PoolActionKind::kBuildSpawner:
      return BuildSpawner();
    case PoolActionKind::kDropSpawner:
      return DropSpawner();
    case PoolActionKind::kStartForCall:
      return StartForCall(action.slot);
    case PoolActionKind::kStart:
      return StartServer(action.slot);
    case PoolActionKind::kPark:
      return Park(action.slot);
    case PoolActionKind::kStop:
      if (Instance* instance = Find(action.slot)) Stop(*instance);
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
    Evaluate();
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

// --- the spawner

void Pool::BuildSpawner() {
  spawner_step_ = SpawnerStep::kBuilding;
  context_.sandbox.BuildVersion(
      SpecOf(*version_, id_), *this,
      [this, alive = std::weak_ptr<char>(alive_)](Result<std::unique_ptr<Spawner>> built) {
        if (alive.expired()) return;
        const Notifier::Turn turn(context_.notifier);
        OnBuilt(std::move(built));
      });
}

void Pool::OnBuilt(Result<std::unique_ptr<Spawner>> built) {
  if (built.ok()) {
    spawner_ = std::move(built).value();
    spawner_step_ = SpawnerStep::kReady;
    warnings_ = spawner_->warnings();
    return Evaluate();
  }
  spawner_step_ = SpawnerStep::kNone;
  const Error& error = built.error();
  if (error.code == Code::kUnavailable && !context_.sandbox.available()) {
    trouble_ = "the launcher is restarting";
    EndProof(error);
    return Evaluate();  // calls wait for OnSandboxAvailable
  }
  FailureFacts facts;
  facts.remark = error.message;
  NoteFailure({OutcomeKind::kSetupFailed, error.sys_errno, "build-version"}, facts);
  EndProof(error);
  Evaluate();
}

// Not from inside one of its own callbacks, and before the next one is built: until the loop's next
// turn the pool behaves as if it were being built.
void Pool::DropSpawner() {
  spawner_step_ = SpawnerStep::kBuilding;
  dying_spawner_ = std::move(spawner_);
  context_.loop.Cancel(bury_timer_);
  bury_timer_ = context_.loop.CallAt(context_.loop.Now(), [this] {
    const Notifier::Turn turn(context_.notifier);
    bury_timer_ = 0;
    dying_spawner_.reset();
    spawner_step_ = SpawnerStep::kNone;
    Evaluate();
  });
}

void Pool::OnGone(const Error& why) {
  const Notifier::Turn turn(context_.notifier);
  InstanceList lost = std::exchange(instances_, InstanceList());
  InstanceExit exit;
  // Not the function's doing, so not its signal.
  exit.setup_step = context_.sandbox.available() ? kSpawnerLost : kLauncherLost;
  for (const auto& instance : lost) {
    Clear(*instance);
    exit.slot = instance->slot;
    const SlotTimes times = Times(*instance);
    for (Call* call : std::exchange(instance->calls, {})) {
      call->facts.remark = "the sandbox above it ended: " + why.message;
      MoveOrEnd(*call, *instance, exit, times);
    }
  }
  DropSpawner();
  trouble_ = "the spawner ended: " + why.message;
  // The first time it is rebuilt at once, for whoever waits; a crash loop backs off.
  if (++failures_ > 1) retry_at_ = context_.clock.Now() + StartBackOff(failures_ - 1);
  last_failure_ = {OutcomeKind::kRejected, 0, std::string(kRejectUnavailable)};
  last_facts_ = FailureFacts();
  EndProof(why);
  Evaluate();
}

// --- starting

MemoryBudget::Lease Pool::TakeMemory(uint64_t bytes) {
  if (phase_ == PoolPhase::kProving) return context_.memory.Force(bytes);
  return context_.memory.Take(bytes);
}

// The budget is used up: somebody's idle instance goes, and until its memory is back the calls
// wait; with nothing to wait for they are told.
void Pool::NoMemory() {
  trouble_ = "the memory budget is used up";
  if (context_.make_room && context_.make_room()) return;
  if (!instances_.empty() || waiting_.empty()) return;
  FailWaiting({OutcomeKind::kRejected, 0, std::string(kRejectMemory)}, FailureFacts(), 5);
  evaluate_again_ = true;  // nothing else will happen here: the idle spawner has to be planned for
}

Instance& Pool::NewInstance(uint16_t slot, InstanceStep step, MemoryBudget::Lease lease) {
  auto instance = std::make_unique<Instance>();
  instance->slot = slot;
  instance->step = step;
  instance->created = context_.clock.Now();
  instance->idle_since = instance->created;
  instance->memory = std::move(lease);
  instances_.push_back(std::move(instance));
  return *instances_.back();
}

void Pool::StartForCall(uint16_t slot) {
  if (waiting_.empty()) return;
  MemoryBudget::Lease lease = TakeMemory(version_->spec.sandbox.memory_bytes);
  if (!lease.held()) return NoMemory();
  Call* call = waiting_.front();
  waiting_.pop_front();
  RefillLater();
  Assign(*call, NewInstance(slot, InstanceStep::kRunning, std::move(lease)), StartKind::kCold);
}

void Pool::Park(uint16_t slot) {
  MemoryBudget::Lease lease = TakeMemory(kParkedInstanceBytes);
  if (!lease.held()) return;  // no call needs it: nobody has to make room
  Instance& instance = NewInstance(slot, InstanceStep::kParking, std::move(lease));
  const Status parked = spawner_->Park(slot);
  if (parked.ok()) return;
  Remove(instance);
  FailureFacts facts;
  facts.remark = parked.error().message;
  NoteFailure({OutcomeKind::kSetupFailed, parked.error().sys_errno, "park"}, facts);
}

void Pool::StartServer(uint16_t slot) {
  MemoryBudget::Lease lease = TakeMemory(version_->spec.sandbox.memory_bytes);
  if (!lease.held()) return NoMemory();
  Instance& instance = NewInstance(slot, InstanceStep::kStarting, std::move(lease));
  const Status started = StartServerIn(instance);
  if (started.ok()) return;
  Remove(instance);
  FailureFacts facts;
  facts.remark = started.error().message;
  NoteFailure({OutcomeKind::kSetupFailed, started.error().sys_errno, "start"}, facts);
}

Status Pool::StartServerIn(Instance& instance) {
  StartOptions options;
  PULGA_ASSIGN_OR_RETURN(options.stdin_fd, OpenNullInput());
  PULGA_ASSIGN_OR_RETURN(FunctionPipe out, MakeOutputPipe());
  PULGA_ASSIGN_OR_RETURN(FunctionPipe err, MakeOutputPipe());
  options.stdout_fd = std::move(out.theirs);
  options.stderr_fd = std::move(err.theirs);
  const auto open_log = [&](UniqueFd fd, const char* stream, std::unique_ptr<LogPipe>* log) {
    *log = std::make_unique<LogPipe>(context_.loop, context_.clock, context_.logs,
                                     SourceOf(*version_, "", stream));
    return (*log)->Open(std::move(fd));
  };
  PULGA_RETURN_IF_ERROR(open_log(std::move(out.ours), "stdout", &instance.stdout_log));
  PULGA_RETURN_IF_ERROR(open_log(std::move(err.ours), "stderr", &instance.stderr_log));
  PULGA_RETURN_IF_ERROR(spawner_->Start(instance.slot, std::move(options)));
  const uint16_t slot = instance.slot;
  instance.upstream = std::make_unique<Upstream>(
      context_.loop, context_.notifier, version_->port,
      std::min(version_->concurrency, kMaxIdleConnections),
      [this, slot](uint16_t count) { (void)spawner_->MakeSockets(slot, count); });
  instance.upstream->Probe([this, &instance] { OnListening(instance); });
  instance.start_timer =
      context_.loop.CallAfter(version_->spec.limits.start_timeout, [this, &instance] {
        const Notifier::Turn turn(context_.notifier);
        instance.start_timer = 0;
        OnStartTimeout(instance);
      });
  return OkStatus();
}

void Pool::OnListening(Instance& instance) {
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  if (instance.step != InstanceStep::kStarting) return;
  instance.step = InstanceStep::kWarm;
  instance.ready = std::chrono::steady_clock::now();
  // Scaled to zero while it started: then it counts as idle for long enough (SetWanted).
  if (instance.idle_since >= instance.created) instance.idle_since = context_.clock.Now();
  trouble_.clear();
  Evaluate();
}

void Pool::OnStartTimeout(Instance& instance) {
  FailureFacts facts;
  if (instance.stderr_log != nullptr) facts.stderr_tail = instance.stderr_log->tail();
  Kill(instance);
  const Outcome outcome = {OutcomeKind::kNotReady, 0, ""};
  NoteFailure(outcome, facts);
  EndProof(Error{Code::kTimeout, 0, MakeFailureText(outcome, version_.get(), facts)});
  Evaluate();
}

void Pool::OnParked(uint16_t slot) {
  const Notifier::Turn turn(context_.notifier);
  Instance* instance = Find(slot);
  if (instance == nullptr || instance->step != InstanceStep::kParking) return;
  instance->step = InstanceStep::kParked;
  instance->ready = std::chrono::steady_clock::now();
  instance->idle_since = context_.clock.Now();
  NoteSuccess();
  Evaluate();
}

void Pool::OnSockets(uint16_t slot, std::vector<UniqueFd> sockets) {
  const Notifier::Turn turn(context_.notifier);
  Instance* instance = Find(slot);
  if (instance == nullptr || instance->upstream == nullptr) return;
  if (instance->step == InstanceStep::kEnding && instance->calls.empty()) return;
  instance->upstream->AddSockets(std::move(sockets));
}

// --- stopping

void Pool::Stop(Instance& instance) {
  if (instance.step == InstanceStep::kWarm || instance.step == InstanceStep::kStarting) {
    Terminate(instance);
  } else {
    Kill(instance);  // parked, or ending already and in somebody's way
  }
}

void Pool::Kill(Instance& instance) {
  instance.step = InstanceStep::kEnding;
  instance.stopped_by_us = true;
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  context_.loop.Cancel(std::exchange(instance.kill_timer, 0));
  if (instance.upstream != nullptr) instance.upstream->Close();
  if (spawner_ != nullptr) (void)spawner_->Signal(instance.slot, SIGKILL);
}

void Pool::Terminate(Instance& instance) {
  if (instance.step == InstanceStep::kEnding) return;
  instance.step = InstanceStep::kEnding;
  instance.stopped_by_us = true;
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  if (instance.calls.empty() && instance.upstream != nullptr) instance.upstream->Close();
  if (spawner_ != nullptr) (void)spawner_->Signal(instance.slot, SIGTERM);
  instance.kill_timer = context_.loop.CallAfter(version_->spec.limits.grace, [this, &instance] {
    instance.kill_timer = 0;
    Kill(instance);
  });
}

void Pool::OnExit(const InstanceExit& exit) {
  const Notifier::Turn turn(context_.notifier);
  Instance* found = Find(exit.slot);
  if (found == nullptr) return;
  const SlotTimes times = spawner_ == nullptr ? SlotTimes() : spawner_->Times(exit.slot);
  const InstanceStep step = found->step;
  const std::unique_ptr<Instance> instance = Remove(*found);
  FailureFacts facts;
  facts.memory_peak_bytes = exit.memory_peak_bytes;
  if (instance->stderr_log != nullptr) facts.stderr_tail = instance->stderr_log->tail();
  Outcome outcome = OutcomeOf(exit);
  // An exec program that fails is its caller's business, and so is a server that listened and died
  // of a request; everything else is a start that failed.
  const bool exec_ran = version_->mode == SandboxMode::kExec && exit.setup_step.empty() &&
                        step == InstanceStep::kRunning;
  const bool listened = version_->mode == SandboxMode::kHttp && instance->ready != TimePoint();
  const bool failed = !instance->stopped_by_us && !exec_ran && !listened;
  if (outcome.kind == OutcomeKind::kOk) outcome.kind = OutcomeKind::kNotReady;
  facts.ended_before_listening = version_->mode == SandboxMode::kHttp && !listened;
  for (Call* call : std::exchange(instance->calls, {})) {
    call->facts = facts;
    MoveOrEnd(*call, *instance, exit, times);
  }
  if (exec_ran) NoteSuccess();
  if (failed) {
    NoteFailure(outcome, facts);
    EndProof(Error{Code::kUnavailable, 0, MakeFailureText(outcome, version_.get(), facts)});
  }
  RefillLater();
  Evaluate();
}

// --- books

Instance* Pool::Find(uint16_t slot) const {
  for (const auto& instance : instances_) {
    if (instance->slot == slot) return instance.get();
  }
  return nullptr;
}

void Pool::Clear(Instance& instance) {
  context_.loop.Cancel(std::exchange(instance.kill_timer, 0));
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  if (instance.upstream != nullptr) instance.upstream->Close();
  if (instance.stdout_log != nullptr) instance.stdout_log->Finish();
  if (instance.stderr_log != nullptr) instance.stderr_log->Finish();
}

std::unique_ptr<Instance> Pool::Remove(Instance& instance) {
  const auto it = std::find_if(instances_.begin(), instances_.end(),
                               [&](const auto& held) { return held.get() == &instance; });
  std::unique_ptr<Instance> removed = std::move(*it);
  instances_.erase(it);
  Clear(*removed);
  removed->memory.Reset();
  return removed;
}

void Pool::NoteSuccess() {
  failures_ = 0;
  retry_at_ = TimePoint();
  trouble_.clear();
}

// Calls that could only wait for the next failure get this one instead.
void Pool::NoteFailure(const Outcome& outcome, const FailureFacts& facts) {
  ++failures_;
  const Duration wait = StartBackOff(failures_);
  retry_at_ = context_.clock.Now() + wait;
  last_failure_ = outcome;
  last_facts_ = facts;
  trouble_ = "starts fail (" + OutcomeName(outcome) + ", " + std::to_string(failures_) +
             " in a row): next try in " + FormatDuration(wait);
  if (failures_ <= 3 || failures_ % 100 == 0) Remark(trouble_);
  if (!AnythingUsable()) FailWaiting(outcome, BackOffFacts(), RetryAfterSeconds());
}

void Pool::Remark(std::string text) {
  using std::chrono::duration_cast;
  const auto wall = context_.clock.WallTime().time_since_epoch();
  context_.logs.Append(version_->key, {duration_cast<std::chrono::milliseconds>(wall).count(),
                                       version_->number, "", "pulga", std::move(text)});
}

bool Pool::AnythingUsable() const {
  return std::any_of(instances_.begin(), instances_.end(),
                     [](const auto& instance) { return instance->step != InstanceStep::kEnding; });
}

// The last failure's, and that calls are not even tried before the next start.
FailureFacts Pool::BackOffFacts() const {
  using std::chrono::milliseconds;
  FailureFacts facts = last_facts_;
  const Duration left = std::max(Duration::zero(), retry_at_ - context_.clock.Now());
  if (!facts.remark.empty()) facts.remark += "; ";
  facts.remark += "starts are failing, " + std::to_string(failures_) +
                  " in a row; the next try is in " +
                  FormatDuration(std::chrono::ceil<milliseconds>(left));
  return facts;
}

uint32_t Pool::RetryAfterSeconds() const {
  const Duration left = retry_at_ - context_.clock.Now();
  return static_cast<uint32_t>(
      std::max<int64_t>(1, std::chrono::ceil<std::chrono::seconds>(left).count()));
}

}  // namespace pulga
