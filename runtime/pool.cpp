#include "runtime/pool.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "runtime/pipe_io.h"
#include "runtime/version_resolver.h"

namespace pulga {
namespace {

// Another function has a device that this one is to have: asked for again so often.
constexpr Duration kHeldElsewhereDelay = std::chrono::milliseconds(250);
// The launcher is full, and another function's spawner goes: tried again so soon.
constexpr Duration kNoPlaceDelay = std::chrono::milliseconds(20);
constexpr uint32_t kMaxIdleConnections = 256;
constexpr uint32_t kWeighEvery = 16;  // of parked ones: they are all alike

VersionSpec SpecOf(const Version& version, uint64_t id, uint32_t slots, const InstanceSize& size) {
  VersionSpec spec;
  spec.version_id = id;
  spec.layers = version.layers;
  spec.mode = version.mode;
  spec.init = version.spec.init == InitChoice::kNone ? InitKind::kNone : InitKind::kPulga;
  spec.argv = version.argv;
  spec.env = version.env;
  if (version.spec.openfaas) {
    spec.env.push_back("OPENFAAS_NAME=" + version.key.name);
    spec.env.push_back("OPENFAAS_NAMESPACE=" + version.key.name_space);
  }
  spec.user = version.user;
  spec.working_dir = version.working_dir.empty() ? "/" : version.working_dir;
  spec.hostname = version.key.name;
  spec.owner = version.key.owner;
  spec.function = version.key.name_space + "/" + version.key.name;
  spec.access = version.spec.access;
  spec.access.volumes = version.volumes;
  for (const std::string& name : version.spec.secrets) spec.secrets.push_back({name, ""});
  spec.limits = version.spec.sandbox;
  spec.most = {spec.limits.memory_bytes, spec.limits.cpu_millis};
  spec.limits.memory_bytes = size.memory_bytes;
  spec.limits.cpu_millis = size.cpu_millis;
  spec.slots = static_cast<uint16_t>(slots);
  const bool by_cpu = version.spec.scale.cpu_target != 0 || version.spec.least_cpu_millis != 0;
  // OpenFaaS' clients ask for it.
  if (by_cpu || version.spec.openfaas) spec.meter = VersionSpec::Meter::kCpu;
  return spec;
}

bool IsHeldElsewhere(const Error& error) {
  return error.code == Code::kAlreadyExists && error.sys_errno == EBUSY;
}

// Whoever listens there already would be taken for the function.
Status CheckHostPort(uint16_t port) {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return LastError("socket");
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int bound = bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  if (bound == 0 || errno != EADDRINUSE) return OkStatus();
  return Error{Code::kAlreadyExists, EBUSY,
               "port " + std::to_string(port) + " of the host is in use by another program"};
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

Pool::Pool(RuntimeContext& context, VersionPtr version, uint64_t id, Duration idle, Books books,
           std::function<void()> on_empty)
    : context_(context),
      id_(id),
      version_(std::move(version)),
      idle_(idle),
      book_(std::move(books.function)),
      refusals_(std::move(books.refusals)),
      on_empty_(std::move(on_empty)),
      min_(version_->spec.scale.min),
      last_used_(context.clock.Now()) {
  StartSizes();
  Changed();
  if (CronSchedules schedules = SchedulesOf(version_->spec.annotations); !schedules.empty()) {
    schedule_ = std::make_unique<Schedule>(std::move(schedules));
  }
  if (const auto probe = ReadyProbeOf(version_->spec.annotations); probe.ok() && *probe) {
    ready_probe_ = std::make_unique<const ReadyProbe>(**probe);
  } else if (version_->spec.openfaas) {
    const Duration start = version_->spec.limits.start_timeout;
    ready_probe_ = std::make_unique<const ReadyProbe>(HealthProbe(start));
  }
  const ScaleSpec& scale = version_->spec.scale;
  if (scale.rps_target != 0) rate_ = std::make_unique<CallRate>(last_used_);
  if (scale.cpu_target != 0 || scale.latency_target != Duration::zero()) {
    meters_ = std::make_unique<Meters>();
  }
}

Pool::~Pool() {
  on_empty_ = nullptr;
  phase_ = PoolPhase::kDraining;
  WantNoMore();
  NoteRefusals();
  EndAllCalls();
  EndProof(Error{Code::kUnavailable, 0, "the version was dropped before it was ready"});
  for (const auto& instance : instances_) Clear(*instance);
  if (context_.room != nullptr) context_.room->Forget(*this);
  for (const EventLoop::TimerId timer :
       {look_timer_, queue_timer_, refill_timer_, drain_timer_, empty_timer_, bury_timer_}) {
    context_.loop.Cancel(timer);
  }
}

// --- the spawner

void Pool::BuildSpawner() {
  spawner_step_ = SpawnerStep::kBuilding;
  context_.sandbox.BuildVersion(SpecOf(*version_, id_, SlotsOf(*version_), size_), *this,
                                [this, size = size_, alive = std::weak_ptr<char>(alive_)](
                                    Result<std::unique_ptr<Spawner>> built) {
                                  if (alive.expired()) return;
                                  const Notifier::Turn turn(context_.notifier);
                                  OnBuilt(std::move(built), size);
                                });
}

void Pool::OnBuilt(Result<std::unique_ptr<Spawner>> built, const InstanceSize& size) {
  if (built.ok()) {
    spawner_ = std::move(built).value();
    SizeOfNewSpawner(size);
    spawner_step_ = SpawnerStep::kReady;
    warnings_ = spawner_->warnings();
    held_elsewhere_.clear();
    CheckProof();  // before anything is started for it
    return Evaluate();
  }
  spawner_step_ = SpawnerStep::kNone;
  const Error& error = built.error();
  if (error.code == Code::kUnavailable && !context_.sandbox.available()) {
    trouble_ = "the launcher is restarting";
    EndProof(error);
    return Evaluate();  // calls wait for OnSandboxAvailable
  }
  if (IsHeldElsewhere(error)) {
    WaitForHolder(error);
    return Evaluate();
  }
  if (IsLauncherFull(error) && context_.room != nullptr) {
    WaitForPlace(error);
    return Evaluate();
  }
  held_elsewhere_.clear();
  FailureFacts facts;
  facts.remark = error.message;
  NoteFailure({OutcomeKind::kSetupFailed, error.sys_errno, "build-version"}, facts);
  EndProof(error);
  Evaluate();
}

// Calls wait for as long as they may; a deploy is told.
void Pool::WaitForHolder(const Error& error) {
  held_elsewhere_ = error.message;
  trouble_ = "waits: " + error.message;
  retry_at_ = context_.clock.Now() + kHeldElsewhereDelay;
  EndProof(error);
}

// One that proves itself waits only where a place is about to be free.
void Pool::WaitForPlace(const Error& error) {
  if (!context_.room->DropASpawner(*this)) return WaitForHolder(error);
  held_elsewhere_ = error.message;
  trouble_ = "waits for a place: " + error.message;
  retry_at_ = context_.clock.Now() + kNoPlaceDelay;
  if (proof_done_) phase_ = PoolPhase::kProving;  // or nobody would ask again
}

// Not from inside one of its own callbacks, and before the next one is built: until the loop's next
// turn the pool behaves as if it were being built.
void Pool::DropSpawner() {
  NoteRefusals();
  if (spawner_ != nullptr) isolation_ = context_.shelf.Keep(spawner_->layers());
  spawner_step_ = SpawnerStep::kBuilding;
  dying_spawner_ = std::move(spawner_);
  SizeOfNewSpawner({});
  cpu_before_.clear();
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
  Changed();
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

Instance& Pool::NewInstance(uint16_t slot, InstanceStep step, MemoryBudget::Lease lease) {
  auto instance = std::make_unique<Instance>();
  instance->slot = slot;
  instance->step = step;
  instance->created = context_.clock.Now();
  instance->idle_since = instance->created;
  instance->memory = std::move(lease);
  instances_.push_back(std::move(instance));
  Changed();
  return *instances_.back();
}

void Pool::StartForCall(uint16_t slot) {
  if (waiting_.empty()) return;
  const TimePoint since = waiting_.front()->submitted;
  MemoryBudget::Lease lease = TakeMemory(limit_bytes(), since);
  if (!lease.held()) return void(NoMemory(limit_bytes(), since, Need::kInstance));
  Call* call = waiting_.front();
  waiting_.pop_front();
  RefillLater();
  Assign(*call, NewInstance(slot, InstanceStep::kRunning, std::move(lease)), StartKind::kCold);
}

void Pool::Park(uint16_t slot, PoolAction::Urgency urgency) {
  MemoryBudget::Lease lease;
  if (phase_ == PoolPhase::kProving) {
    lease = context_.memory.Force(kParkedInstanceBytes);
  } else if (urgency == PoolAction::Urgency::kNow) {
    lease = TakeMemory(kParkedInstanceBytes, std::nullopt);
    if (!lease.held()) return void(NoMemory(kParkedInstanceBytes, std::nullopt, Need::kMinimum));
  } else if (context_.room == nullptr || !context_.room->anybody_denied()) {
    lease = context_.memory.Take(kParkedInstanceBytes);
  }
  // Nobody waits for it: no room is made.
  if (!lease.held()) return;
  Instance& instance = NewInstance(slot, InstanceStep::kParking, std::move(lease));
  const Status parked = spawner_->Park(slot);
  if (parked.ok()) return;
  Remove(instance);
  FailureFacts facts;
  facts.remark = parked.error().message;
  NoteFailure({OutcomeKind::kSetupFailed, parked.error().sys_errno, "park"}, facts);
}

void Pool::StartServer(uint16_t slot, PoolAction::Urgency urgency) {
  const Since since = OldestWaiting();
  const bool ahead = urgency == PoolAction::Urgency::kAhead;
  if (ahead && context_.room != nullptr && context_.room->anybody_denied()) return;
  MemoryBudget::Lease lease = TakeMemory(limit_bytes(), since);
  if (!lease.held()) {
    if (!ahead) NoMemory(limit_bytes(), since, since ? Need::kInstance : Need::kMinimum);
    return;
  }
  Instance& instance = NewInstance(slot, InstanceStep::kStarting, std::move(lease));
  const Status started = StartServerIn(instance);
  if (started.ok()) return held_elsewhere_.clear();
  Remove(instance);
  if (IsHeldElsewhere(started.error())) return WaitForHolder(started.error());
  FailureFacts facts;
  facts.remark = started.error().message;
  NoteFailure({OutcomeKind::kSetupFailed, started.error().sys_errno, "start"}, facts);
}

LogSource Pool::SourceOf(const Instance& instance, std::string call_id, std::string stream) const {
  return {version_->key, version_->number, std::move(call_id), std::move(stream),
          std::to_string(version_->number) + "-" + std::to_string(instance.slot)};
}

Status Pool::StartServerIn(Instance& instance) {
  const bool frames = version_->mode == SandboxMode::kFrames;
  if (!frames && version_->spec.access.network.mode == NetworkMode::kHost) {
    PULGA_RETURN_IF_ERROR(CheckHostPort(version_->port));
  }
  StartOptions options;
  PULGA_ASSIGN_OR_RETURN(options.stdin_fd, OpenNullInput());
  PULGA_ASSIGN_OR_RETURN(FunctionPipe out, MakeOutputPipe());
  PULGA_ASSIGN_OR_RETURN(FunctionPipe err, MakeOutputPipe());
  options.stdout_fd = std::move(out.theirs);
  options.stderr_fd = std::move(err.theirs);
  const auto open_log = [&](UniqueFd fd, const char* stream, std::unique_ptr<LogPipe>* log) {
    *log = std::make_unique<LogPipe>(context_.loop, context_.clock, context_.logs,
                                     SourceOf(instance, "", stream));
    return (*log)->Open(std::move(fd));
  };
  PULGA_RETURN_IF_ERROR(open_log(std::move(out.ours), "stdout", &instance.stdout_log));
  PULGA_RETURN_IF_ERROR(open_log(std::move(err.ours), "stderr", &instance.stderr_log));
  if (frames) {
    PULGA_ASSIGN_OR_RETURN(FramesChannel::Pair pair, FramesChannel::MakePair());
    options.channel_fd = std::move(pair.theirs);
    PULGA_RETURN_IF_ERROR(OpenChannel(instance, std::move(pair.ours)));
  }
  PULGA_RETURN_IF_ERROR(spawner_->Start(instance.slot, std::move(options)));
  if (!frames) ProbeServer(instance);
  instance.start_timer =
      context_.loop.CallAfter(version_->spec.limits.start_timeout, [this, &instance] {
        const Notifier::Turn turn(context_.notifier);
        instance.start_timer = 0;
        OnStartTimeout(instance);
      });
  return OkStatus();
}

void Pool::ProbeServer(Instance& instance) {
  const uint16_t slot = instance.slot;
  instance.upstream = std::make_unique<Upstream>(
      context_.loop, context_.notifier, version_->port,
      std::min(version_->concurrency, kMaxIdleConnections),
      [this, slot](uint16_t count) { (void)spawner_->MakeSockets(slot, count); });
  instance.upstream->Probe([this, &instance] { OnListening(instance); });
}

void Pool::OnListening(Instance& instance) {
  const bool asked = ready_probe_ != nullptr && instance.upstream != nullptr;
  if (!asked || instance.step != InstanceStep::kStarting) return OnReady(instance);
  instance.ready_check =
      std::make_unique<ReadyCheck>(context_.loop, context_.notifier, *instance.upstream,
                                   *ready_probe_, [this, &instance] { OnReady(instance); });
}

void Pool::OnReady(Instance& instance) {
  instance.ready_check.reset();
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  if (instance.step != InstanceStep::kStarting) return;
  instance.step = InstanceStep::kWarm;
  instance.ready = context_.clock.Now();
  const TimePoint now = context_.clock.Now();
  book_->costs().NoteStart(Rung::kCold, now - instance.created);
  // Brought up ahead of a call: its idleness is the function's, or it would go before that call.
  instance.idle_since = waiting_.empty() ? book_->idle_since().value_or(now) : now;
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
  instance->ready = context_.clock.Now();
  instance->idle_since = context_.clock.Now();
  if (parks_++ % kWeighEvery == 0) NoteBytes(*instance, Rung::kParked);
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
  // A watchdog would wait half a minute for calls that do not come any more.
  if (instance.calls.empty() && RunsWatchdog(*version_)) return Kill(instance);
  if (instance.step == InstanceStep::kWarm || instance.step == InstanceStep::kFrozen ||
      instance.step == InstanceStep::kReclaimed || instance.step == InstanceStep::kStarting) {
    Terminate(instance);
  } else {
    Kill(instance);  // parked, or ending already and in somebody's way
  }
}

// Of a channel with calls open the end is still read.
void Pool::CloseWays(Instance& instance) {
  instance.ready_check.reset();
  if (instance.upstream != nullptr) instance.upstream->Close();
  if (instance.channel != nullptr && instance.calls.empty()) instance.channel->Close();
}

void Pool::Kill(Instance& instance) {
  instance.step = InstanceStep::kEnding;
  Changed();
  instance.stopped_by_us = instance.killed = true;
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  context_.loop.Cancel(std::exchange(instance.kill_timer, 0));
  CloseWays(instance);
  if (spawner_ != nullptr) (void)spawner_->Signal(instance.slot, SIGKILL);
}

void Pool::Terminate(Instance& instance) {
  if (instance.step == InstanceStep::kEnding) return;
  AwaitExit(instance);
  if (spawner_ != nullptr) (void)spawner_->Signal(instance.slot, SIGTERM);
}

void Pool::AwaitExit(Instance& instance) {
  instance.step = InstanceStep::kEnding;
  Changed();
  instance.stopped_by_us = true;
  context_.loop.Cancel(std::exchange(instance.start_timer, 0));
  if (instance.calls.empty()) CloseWays(instance);
  instance.kill_timer = context_.loop.CallAfter(version_->spec.limits.grace, [this, &instance] {
    instance.kill_timer = 0;
    Kill(instance);
  });
}

void Pool::OnExit(const InstanceExit& exit) {
  const Notifier::Turn turn(context_.notifier);
  NoteRefusals();
  Instance* found = Find(exit.slot);
  if (found == nullptr) return;
  const SlotTimes times = spawner_ == nullptr ? SlotTimes() : spawner_->Times(exit.slot);
  const InstanceStep step = found->step;
  const std::unique_ptr<Instance> instance = Remove(*found);
  FailureFacts facts;
  facts.memory_peak_bytes = exit.memory_peak_bytes;
  facts.memory_limit_bytes = limit_bytes();
  Outcome outcome = OutcomeOf(exit);
  // An exec program that fails is its caller's business, and so is a server that listened and died
  // of a request; everything else is a start that failed.
  const bool exec_ran = version_->mode == SandboxMode::kExec && exit.setup_step.empty() &&
                        step == InstanceStep::kRunning;
  const bool listened = IsServer(version_->mode) && instance->ready != TimePoint();
  // What a server wrote since it listened may be about other callers' requests.
  if (instance->stderr_log != nullptr && !listened) {
    facts.stderr_tail = instance->stderr_log->tail();
  }
  const bool failed = !instance->stopped_by_us && !exec_ran && (!listened || MetNoCall(*instance));
  if (outcome.kind == OutcomeKind::kOk) {
    outcome.kind = listened ? OutcomeKind::kBadResponse : OutcomeKind::kNotReady;
    if (listened && failed) facts.remark = "the server exited with code 0 before its first call";
  }
  facts.ended_before_listening = IsServer(version_->mode) && !listened;
  for (Call* call : std::exchange(instance->calls, {})) {
    call->facts = facts;
    MoveOrEnd(*call, *instance, exit, times);
  }
  if (exec_ran) {
    NoteSuccess();
    const bool parked = instance->ready != TimePoint();
    if (times.exec >= instance->launched) {
      book_->costs().NoteStart(parked ? Rung::kParked : Rung::kCold,
                               times.exec - instance->launched);
    }
  }
  NoteEnd(*instance, exit, times);
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
  if (instance.channel != nullptr) {
    instance.step = InstanceStep::kEnding;  // calls that end now leave nothing to decide
    instance.channel->Drain();
    instance.channel->Close();
  }
  CloseWays(instance);
  if (instance.stdout_log != nullptr) instance.stdout_log->Finish();
  if (instance.stderr_log != nullptr) instance.stderr_log->Finish();
}

std::unique_ptr<Instance> Pool::Remove(Instance& instance) {
  const auto it = std::find_if(instances_.begin(), instances_.end(),
                               [&](const auto& held) { return held.get() == &instance; });
  std::unique_ptr<Instance> removed = std::move(*it);
  instances_.erase(it);
  Changed();
  Clear(*removed);
  removed->memory.Reset();
  return removed;
}

void Pool::NoteBytes(const Instance& instance, Rung rung) {
  const uint64_t bytes = spawner_ == nullptr ? 0 : spawner_->MemoryBytes(instance.slot);
  if (bytes > 0) book_->costs().NoteBytes(rung, bytes);
}

bool Pool::MetNoCall(const Instance& instance) { return !instance.used && instance.calls.empty(); }

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
  context_.logs.Append(
      version_->key, {UnixMillis(context_.clock), version_->number, "", "pulga", std::move(text)});
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
