#include "runtime/dispatcher.h"

#include <signal.h>

#include <algorithm>
#include <list>
#include <utility>

#include "runtime/exec_invocation.h"
#include "runtime/frames_invocation.h"
#include "runtime/http_invocation.h"
#include "runtime/memory_budget.h"
#include "runtime/pool.h"
#include "runtime/room_maker.h"

namespace pulga {
namespace {

constexpr Duration kDrainAfterglow = std::chrono::seconds(1);  // for fronts to read the last words

// From its submission; what is over one of these limits has ended for that.
Duration LongestCall(const Version& version) {
  const InvocationLimits& limits = version.spec.limits;
  return version.spec.scale.queue_wait + limits.start_timeout + limits.timeout;
}

// A call that never had a pool: unknown function, no http function for an upgrade, shutting down.
class RejectedInvocation final : public Call {
 public:
  using Call::Call;
  ~RejectedInvocation() override { Abandon(AfterCall::kDead); }
  size_t Write(std::string_view bytes) override { return bytes.size(); }
  void EndBody() override {}
  ReadResult Read(char*, size_t) override {
    return {head_told() ? ReadState::kEnd : ReadState::kWait, 0};
  }
  std::optional<std::string_view> WholeBody() const override { return std::string_view(); }
  void OnInstance(Instance&, StartKind) override {}
  void OnInstanceExit(Instance&, const InstanceExit&, const SlotTimes&) override {}
  bool Movable() const override { return false; }
  void OnMoved() override {}

 private:
  void CloseIo() override {}
};

class DispatcherImpl final : public Dispatcher {
 public:
  DispatcherImpl(const DispatcherConfig& config, EventLoop& loop, const Clock& clock,
                 Sandbox& sandbox, FunctionLogs& logs)
      : config_(config),
        loop_(loop),
        notifier_(loop),
        memory_(config.memory_budget_bytes, config.max_instances),
        room_(memory_, clock, [this] { return Pools(); }),
        context_{loop,    clock,  sandbox,      logs, notifier_,
                 memory_, &room_, BufferPool(), 0,    [this] { OnCallsGone(); }} {
    memory_.set_on_freed([this] { EvaluateWaitingLater(); });
    room_.on_satisfied = [this] { EvaluateWaitingLater(); };
  }

  ~DispatcherImpl() override {
    memory_.set_on_freed(nullptr);
    room_.on_satisfied = nullptr;
    context_.room = nullptr;
    context_.on_calls_gone = nullptr;
    for (EventLoop::TimerId timer : {evaluate_timer_, drain_timer_}) loop_.Cancel(timer);
    alive_.reset();
    functions_.clear();
    retired_.clear();
  }

  void Activate(VersionPtr version, std::function<void(Status)> done) override;
  void Restore(VersionPtr version, std::function<void()> done) override;
  void Deactivate(const FunctionKey& key, std::function<void()> done) override;
  Status Scale(const FunctionKey& key, uint32_t instances) override;
  std::unique_ptr<Invocation> Invoke(InvocationRequest request,
                                     InvocationObserver& observer) override;
  LearnedByKey TakeLearned() override;
  void Recall(const FunctionKey& key, Learned learned) override {
    recalled_.insert_or_assign(key, std::move(learned));
  }
  FunctionActivity Activity(const FunctionKey& key) const override;
  FunctionActivity Glance(const FunctionKey& key) const override;
  DispatcherTotals Totals() const override {
    return {memory_.total(), memory_.used(), memory_.instances(), context_.open_calls,
            room_.anybody_denied()};
  }
  void Drain(TimePoint deadline, std::function<void()> done) override;
  void OnSandboxAvailable() override;
  void SetPressure(PressureLevel level, const std::string& why) override;

 private:
  struct Function {
    std::unique_ptr<Pool> active;  // none while the first version proves itself
    std::unique_ptr<Pool> next;    // proving itself
    std::function<void(Status)> next_done;
    uint64_t proof = 0;  // which one that is; a pool made later may lie where an earlier one lay
    std::shared_ptr<OutcomeCounts> counts = std::make_shared<OutcomeCounts>();
    Pool::Books books;
  };

  Function& FunctionOf(const FunctionKey& key);
  static void AddCounts(const Function& function, FunctionActivity* activity);
  // Of all its versions, the one with the traffic last; the function, if one has it.
  const Function* ForEachPool(const FunctionKey& key, const std::function<void(Pool&)>& tell) const;
  std::unique_ptr<Pool> MakePool(const Function& function, VersionPtr version);
  void OnProven(const FunctionKey& key, uint64_t proof, Status status);
  void SwitchTo(Function& function, std::unique_ptr<Pool> pool);
  void DropNext(Function& function, Error why);
  void Retire(std::unique_ptr<Pool> pool, TimePoint deadline);
  void OnEmpty(uint64_t id);
  void OnCallsGone();
  void TellDeactivated();
  void EvaluateWaitingLater();
  // Runs `call` from the loop unless this dispatcher is gone by then.
  void Later(std::function<void()> call);
  std::vector<Pool*> Pools() const;

  DispatcherConfig config_;
  EventLoop& loop_;
  Notifier notifier_;
  MemoryBudget memory_;
  RoomMaker room_;
  RuntimeContext context_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  std::map<FunctionKey, Function> functions_;
  std::map<FunctionKey, Learned> recalled_;  // of functions not restored yet
  std::list<std::unique_ptr<Pool>> retired_;
  std::vector<std::pair<FunctionKey, std::function<void()>>> deactivating_;
  uint64_t next_extra_id_ = uint64_t{1} << 32;
  uint64_t last_proof_ = 0;
  bool draining_ = false;
  std::function<void()> drained_;
  EventLoop::TimerId drain_timer_ = 0;
  EventLoop::TimerId evaluate_timer_ = 0;
};

void DispatcherImpl::Later(std::function<void()> call) {
  loop_.CallAt(loop_.Now(), [this, call = std::move(call), alive = std::weak_ptr<char>(alive_)] {
    if (alive.expired()) return;
    const Notifier::Turn turn(notifier_);
    call();
  });
}

std::vector<Pool*> DispatcherImpl::Pools() const {
  std::vector<Pool*> pools;
  for (const auto& [key, function] : functions_) {
    if (function.active != nullptr) pools.push_back(function.active.get());
    if (function.next != nullptr) pools.push_back(function.next.get());
  }
  for (const auto& pool : retired_) pools.push_back(pool.get());
  return pools;
}

// --- versions

std::unique_ptr<Pool> DispatcherImpl::MakePool(const Function& function, VersionPtr version) {
  uint64_t id = version->id;
  const std::vector<Pool*> pools = Pools();
  // A version rolled back to may still be draining under its own number.
  const auto taken = [&](uint64_t wanted) {
    return std::any_of(pools.begin(), pools.end(),
                       [&](const Pool* pool) { return pool->id() == wanted; });
  };
  if (id == 0 || taken(id)) id = next_extra_id_++;
  return std::make_unique<Pool>(context_, std::move(version), id, config_.idle, function.books,
                                [this, id] { OnEmpty(id); });
}

DispatcherImpl::Function& DispatcherImpl::FunctionOf(const FunctionKey& key) {
  Function& function = functions_[key];
  if (function.books.function == nullptr) {
    function.books.function = std::make_shared<FunctionBook>(context_.clock.Now());
    const auto learned = recalled_.extract(key);
    if (!learned.empty()) function.books.function->Recall(learned.mapped(), context_.clock);
    function.books.refusals = std::make_shared<RefusalBook>();
  }
  return function;
}

void DispatcherImpl::Activate(VersionPtr version, std::function<void(Status)> done) {
  const Notifier::Turn turn(notifier_);
  const FunctionKey key = version->key;
  Function& function = FunctionOf(key);
  DropNext(function, {Code::kUnavailable, 0, "a newer version took its place"});
  std::unique_ptr<Pool> pool = MakePool(function, std::move(version));
  const bool server = IsServer(pool->version().mode);
  // One port of the host, two servers: the new one has to wait until the old one is gone.
  const bool takes_turns = pool->version().mode == SandboxMode::kHttp &&
                           function.active != nullptr &&
                           pool->version().spec.access.network.mode == NetworkMode::kHost;
  const bool by_instance =
      !takes_turns && (pool->version().spec.scale.min > 0 ||
                       (function.active != nullptr && (server || function.active->HasInstances())));
  const Pool::Proof kind = by_instance ? Pool::Proof::kInstance : Pool::Proof::kSpawner;
  function.next = std::move(pool);
  function.next_done = std::move(done);
  function.proof = ++last_proof_;
  function.next->Prove(kind, [this, key, proof = function.proof](Status status) {
    Later([this, key, proof, status = std::move(status)] { OnProven(key, proof, status); });
  });
}

void DispatcherImpl::Restore(VersionPtr version, std::function<void()> done) {
  const Notifier::Turn turn(notifier_);
  Function& function = FunctionOf(version->key);
  DropNext(function, {Code::kUnavailable, 0, "another version took its place"});
  SwitchTo(function, MakePool(function, std::move(version)));
  Later(std::move(done));
}

void DispatcherImpl::OnProven(const FunctionKey& key, uint64_t proof, Status status) {
  const auto it = functions_.find(key);
  if (it == functions_.end() || it->second.next == nullptr) return;
  if (it->second.proof != proof) return;  // of one that was dropped
  Function& function = it->second;
  const bool first = function.active == nullptr;
  const bool no_room = !status.ok() && status.error().code == Code::kNoSpace;
  if (!status.ok() && !(first && no_room)) {
    DropNext(function, status.error());
    if (first) functions_.erase(it);
    return;
  }
  const std::function<void(Status)> done = std::exchange(function.next_done, nullptr);
  SwitchTo(function, std::move(function.next));
  done(OkStatus());
}

void DispatcherImpl::SwitchTo(Function& function, std::unique_ptr<Pool> pool) {
  std::unique_ptr<Pool> old = std::exchange(function.active, std::move(pool));
  if (old != nullptr) {
    const Duration drain = std::max(config_.drain_timeout, LongestCall(old->version()));
    Retire(std::move(old), loop_.Now() + drain);
  }
  function.active->Evaluate();  // for scale.min
}

void DispatcherImpl::DropNext(Function& function, Error why) {
  const std::unique_ptr<Pool> dropped = std::move(function.next);
  const std::function<void(Status)> done = std::exchange(function.next_done, nullptr);
  if (done) Later([done, why = std::move(why)] { done(why); });
}

void DispatcherImpl::Retire(std::unique_ptr<Pool> pool, TimePoint deadline) {
  Pool* retiring = pool.get();
  retired_.push_back(std::move(pool));
  retiring->Drain(deadline);
}

void DispatcherImpl::OnEmpty(uint64_t id) {
  retired_.remove_if([id](const auto& pool) { return pool->id() == id; });
  TellDeactivated();
}

void DispatcherImpl::Deactivate(const FunctionKey& key, std::function<void()> done) {
  const Notifier::Turn turn(notifier_);
  recalled_.erase(key);
  const auto it = functions_.find(key);
  if (it != functions_.end()) {
    DropNext(it->second, {Code::kNotFound, 0, "the function was removed"});
    std::unique_ptr<Pool> active = std::move(it->second.active);
    functions_.erase(it);
    const TimePoint deadline = loop_.Now() + config_.drain_timeout;
    if (active != nullptr) Retire(std::move(active), deadline);
    // Whoever removes a function does not wait for the calls of its older versions either.
    for (const auto& pool : retired_) {
      if (pool->version().key == key) pool->Drain(deadline);
    }
  }
  deactivating_.emplace_back(key, std::move(done));
  Later([this] { TellDeactivated(); });
}

void DispatcherImpl::TellDeactivated() {
  std::vector<std::function<void()>> ready;
  std::erase_if(deactivating_, [&](auto& entry) {
    const bool left = std::any_of(retired_.begin(), retired_.end(), [&](const auto& pool) {
      return pool->version().key == entry.first;
    });
    if (!left) ready.push_back(std::move(entry.second));
    return !left;
  });
  for (const auto& done : ready) done();
}

Status DispatcherImpl::Scale(const FunctionKey& key, uint32_t instances) {
  const Notifier::Turn turn(notifier_);
  const auto it = functions_.find(key);
  if (it == functions_.end() || it->second.active == nullptr) {
    return Error{Code::kNotFound, 0, "there is no such function"};
  }
  const uint32_t max = it->second.active->version().spec.scale.max;
  if (instances > max) {
    return Error{Code::kInvalidArgument, 0,
                 std::to_string(instances) + " instances are more than scale.max, which is " +
                     std::to_string(max)};
  }
  it->second.active->SetWanted(instances);
  return OkStatus();
}

// --- calls

std::unique_ptr<Invocation> DispatcherImpl::Invoke(InvocationRequest request,
                                                   InvocationObserver& observer) {
  const Notifier::FrontCall scope(notifier_);
  const auto it = functions_.find(request.function);
  const bool known = it != functions_.end() && it->second.active != nullptr;
  const bool upgrades =
      known && !request.upgrade.empty() && it->second.active->version().mode != SandboxMode::kHttp;
  if (!known || draining_ || upgrades) {
    auto counts = known ? it->second.counts : nullptr;
    auto call = std::make_unique<RejectedInvocation>(context_, nullptr, std::move(counts),
                                                     std::move(request), observer);
    const std::string_view why = upgrades ? kRejectUpgrade : kRejectUnknownFunction;
    call->Reject(draining_ ? kRejectShuttingDown : why, 0);
    return call;
  }
  Function& function = it->second;
  Pool& pool = *function.active;
  const auto begin = [&]<typename Kind>(std::type_identity<Kind>) -> std::unique_ptr<Invocation> {
    auto call = std::make_unique<Kind>(context_, pool.version_ptr(), function.counts,
                                       std::move(request), observer);
    call->Begin(pool);
    return call;
  };
  switch (pool.version().mode) {
    case SandboxMode::kExec:
      return begin(std::type_identity<ExecInvocation>());
    case SandboxMode::kFrames:
      return begin(std::type_identity<FramesInvocation>());
    case SandboxMode::kHttp:
      break;
  }
  return begin(std::type_identity<HttpInvocation>());
}

Dispatcher::LearnedByKey DispatcherImpl::TakeLearned() {
  LearnedByKey all;
  for (const auto& [key, function] : functions_) {
    FunctionBook& book = *function.books.function;
    if (book.changed()) all.emplace_back(key, book.Take(context_.clock));
  }
  return all;
}

const DispatcherImpl::Function* DispatcherImpl::ForEachPool(
    const FunctionKey& key, const std::function<void(Pool&)>& tell) const {
  for (const auto& pool : retired_) {
    if (pool->version().key == key) tell(*pool);
  }
  const auto it = functions_.find(key);
  if (it == functions_.end()) return nullptr;
  const Function& function = it->second;
  if (function.next != nullptr) tell(*function.next);
  if (function.active == nullptr) return nullptr;
  tell(*function.active);
  return &function;
}

FunctionActivity DispatcherImpl::Activity(const FunctionKey& key) const {
  FunctionActivity activity;
  const Function* function = ForEachPool(key, [&](Pool& pool) {
    pool.NoteRefusals();
    pool.Describe(&activity);
  });
  if (function == nullptr) return activity;
  activity.refused = function->books.refusals->counts();
  const auto& decisions = function->books.function->decisions();
  activity.decisions.assign(decisions.begin(), decisions.end());
  AddCounts(*function, &activity);
  return activity;
}

FunctionActivity DispatcherImpl::Glance(const FunctionKey& key) const {
  FunctionActivity activity;
  const Function* function = ForEachPool(key, [&](Pool& pool) { pool.Glance(&activity); });
  if (function != nullptr) AddCounts(*function, &activity);
  return activity;
}

void DispatcherImpl::AddCounts(const Function& function, FunctionActivity* activity) {
  activity->version = function.active->version().number;
  activity->invocations = function.counts->invocations;
  for (size_t i = 0; i < function.counts->by_kind.size(); ++i) {
    if (function.counts->by_kind[i] == 0) continue;
    const std::string name = OutcomeName({static_cast<OutcomeKind>(i), 0, ""});
    activity->outcomes[name.substr(0, name.find(':'))] = function.counts->by_kind[i];
  }
}

// --- the whole

void DispatcherImpl::EvaluateWaitingLater() {
  if (evaluate_timer_ != 0 || !room_.anybody_unmet()) return;
  evaluate_timer_ = loop_.CallAt(loop_.Now(), [this] {
    const Notifier::Turn turn(notifier_);
    evaluate_timer_ = 0;
    room_.ServeInTurn();
  });
}

void DispatcherImpl::OnSandboxAvailable() {
  const Notifier::Turn turn(notifier_);
  for (Pool* pool : Pools()) pool->Evaluate();
}

void DispatcherImpl::SetPressure(PressureLevel level, const std::string& why) {
  const Notifier::Turn turn(notifier_);
  const bool eased = level < context_.pressure;
  context_.pressure = level;
  context_.pressure_why = why;
  if (level != PressureLevel::kCalm) {
    uint32_t most = memory_.instances();
    if (level == PressureLevel::kShrink) most = 1 + most / 8;
    if (level == PressureLevel::kDelay) most = 1 + most / 4;
    // Parked sandboxes hold next to nothing: at kShrink they stay.
    const bool servers = level < PressureLevel::kDelay;
    room_.GiveUp(most, servers ? RoomMaker::Whose::kServers : RoomMaker::Whose::kAll,
                 "the board is under pressure");
  }
  if (!eased) return;
  for (Pool* pool : Pools()) pool->Evaluate();
}

void DispatcherImpl::Drain(TimePoint deadline, std::function<void()> done) {
  draining_ = true;
  drained_ = std::move(done);
  drain_timer_ = loop_.CallAt(deadline, [this] {
    const Notifier::Turn turn(notifier_);
    for (Pool* pool : Pools()) pool->EndAllCalls();
    drain_timer_ = loop_.CallAfter(kDrainAfterglow, [this] {
      drain_timer_ = 0;
      const std::function<void()> finished = std::exchange(drained_, nullptr);
      if (finished) finished();
    });
  });
  if (context_.open_calls == 0) OnCallsGone();
}

void DispatcherImpl::OnCallsGone() {
  if (!drained_) return;
  Later([this] {
    if (context_.open_calls != 0) return;
    loop_.Cancel(std::exchange(drain_timer_, 0));
    const std::function<void()> finished = std::exchange(drained_, nullptr);
    if (finished) finished();
  });
}

}  // namespace

std::unique_ptr<Dispatcher> Dispatcher::Create(DispatcherConfig config, EventLoop& loop,
                                               const Clock& clock, Sandbox& sandbox,
                                               FunctionLogs& logs) {
  signal(SIGPIPE, SIG_IGN);  // a function may close its stdin at any time
  return std::make_unique<DispatcherImpl>(config, loop, clock, sandbox, logs);
}

}  // namespace pulga
