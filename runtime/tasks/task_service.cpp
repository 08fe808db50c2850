#include "runtime/tasks/task_service.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/file_io.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// While there are tasks to begin and the board has no room for them: nothing tells when it has.
constexpr Duration kLookAgain = milliseconds(250);
constexpr Duration kForgetInterval = seconds(30);

Error Stopping() { return {Code::kUnavailable, 0, "the daemon is shutting down"}; }
Error Full(std::string why) {
  return {Code::kUnavailable, EAGAIN, "the task queue is full: " + std::move(why)};
}

// `most`: the function's own limit; 0: none.
Status CheckBody(const FunctionKey& function, uint64_t bytes, uint64_t message_bytes,
                 uint64_t most) {
  if (bytes > message_bytes) {
    return Error{
        Code::kTooLarge, 0,
        "a task's body may have " + HumanBytes(message_bytes) + " (setting task-message-bytes)"};
  }
  if (most == 0 || bytes <= most) return OkStatus();
  return Error{Code::kTooLarge, 0,
               "function " + function.name + " takes " + HumanBytes(most) + " (limits.body)"};
}

void OweCallback(Task& task) {
  if (task.callback.state == CallbackState::kWaiting) task.callback.state = CallbackState::kOwed;
}

uint64_t StoredBytes(const TaskOrder& order) {
  const uint64_t url = order.callback ? order.callback->url.size() : 0;
  return StoredBytes(order.request) + url;
}

TaskChange ChangeTo(const Task& task) {
  TaskChange change;
  change.task = task;
  return change;
}

}  // namespace

class TaskService::DraftImpl final : public Tasks::Draft {
 public:
  // `most`: bytes its function takes; 0: any number.
  DraftImpl(TaskService& service, TaskOrder order, uint64_t most)
      : service_(service), alive_(service.alive_), order_(std::move(order)), most_(most) {}
  ~DraftImpl() override { LetGo(); }

  Status Append(std::string_view bytes) override {
    const uint64_t size = body_.size() + bytes.size();
    PULGA_RETURN_IF_ERROR(CheckBody(order_.function, size, service_.limits_.message_bytes, most_));
    PULGA_RETURN_IF_ERROR(service_.CheckHand(order_.function, bytes.size()));
    service_.Arrive(order_.function, bytes.size());
    counted_ += bytes.size();
    body_ += bytes;
    return OkStatus();
  }
  void Submit(std::function<void(Result<std::string>)> done) override {
    LetGo();
    service_.Submit(std::move(order_), std::move(body_), std::move(done));
  }

 private:
  void LetGo() {
    if (!alive_.expired()) service_.Arrived(order_.function, std::exchange(counted_, 0));
  }
  TaskService& service_;
  std::weak_ptr<char> alive_;
  TaskOrder order_;
  const uint64_t most_;
  std::string body_;
  size_t counted_ = 0;
};

TaskService::TaskService(TaskParts parts, TaskLimits limits)
    : parts_(std::move(parts)), limits_(limits) {}

// What is on its way to the disk gets there.
TaskService::~TaskService() {
  for (EventLoop::TimerId timer : {evaluate_timer_, retry_timer_, forget_timer_, callback_timer_}) {
    parts_.loop.Cancel(timer);
  }
  alive_.reset();
  const auto cut = std::exchange(running_, {});
  sending_.clear();  // what they owe is on disk
  thread_.reset();
  std::vector<TaskChange> rest;
  for (Write& write : unwritten_) rest.push_back(std::move(write.change));
  for (const auto& [seq, run] : cut) {
    // Else the next start finds them running, as after a crash.
    if (stopping_) rest.push_back(ChangeTo(Untried(seq)));
  }
  if (rest.empty() || store_ == nullptr) return;
  const Status written = store_->Apply(rest);
  if (!written.ok()) LogError("the last changes of tasks: " + written.error().message);
}

int64_t TaskService::NowMs() const {
  return std::chrono::duration_cast<milliseconds>(parts_.clock.WallTime().time_since_epoch())
      .count();
}

Status TaskService::Load() {
  if (!TaskStore::Exists(parts_.data_dir)) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(store_, TaskStore::Open(parts_.data_dir));
  PULGA_ASSIGN_OR_RETURN(TaskStore::Loaded loaded, store_->Load());
  next_seq_ = loaded.last_seq + 1;
  fired_ = std::move(loaded.fired);
  const TimePoint now = parts_.clock.Now();
  const int64_t now_ms = NowMs();
  for (Task& task : loaded.tasks) {
    if (task.state == TaskState::kQueued && task.interrupts >= kMostInterrupts) {
      LogWarning("task " + task.id + " was cut short " + std::to_string(task.interrupts) +
                 " times, and is given up");
      task.state = TaskState::kDead;
      task.ended_ms = now_ms;
      task.status = 503;
      OweCallback(task);
      Update(task, TaskAnswer());
    }
    Duration wait = -AgeAfterLoad(task, now_ms);
    if (!HasEnded(task.state)) wait = WaitAfterLoad(task, now_ms, RulesOf(task.function));
    if (HasEnded(task.state) && !IsSettled(task)) {
      wait = WaitLeft(task.callback.not_before_ms, now_ms, kLongestCallbackWait);
    }
    queue_.Add(std::move(task), now + wait);
  }
  const TaskCounts counts = queue_.totals();
  if (counts.queued > 0) LogInfo(std::to_string(counts.queued) + " tasks wait to be run");
  return OkStatus();
}

RetryRules TaskService::RulesOf(const FunctionKey& function) const {
  const VersionPtr version = parts_.version(function);
  const auto parsed =
      version == nullptr ? RetryRules() : ParseRetryRules(version->spec.annotations);
  return parsed.ok() ? *parsed : RetryRules();
}

Status TaskService::StartThread() {
  if (thread_ != nullptr) return OkStatus();
  auto thread = WorkQueue::Start("pulga-tasks", parts_.loop);
  if (!thread.ok()) return thread.error();
  thread_ = std::move(*thread);
  return OkStatus();
}

void TaskService::Resume() {
  resumed_ = true;
  ForgetOld(0);
  Evaluate();
  EvaluateCallbacks();
}

void TaskService::BeginStopping() { stopping_ = true; }

void TaskService::SetLimits(const TaskLimits& limits) {
  limits_ = limits;
  if (resumed_) ForgetOld(0);
}

// --- taking them

// Ended tasks make room, but nothing is forgotten for what is refused anyway.
Status TaskService::CheckRoom(uint64_t bytes) const {
  const TaskCounts counts = queue_.totals();
  if (counts.queued + counts.running + queue_.owing() + arriving_.size() >= limits_.unended) {
    return Full(std::to_string(limits_.unended) +
                " tasks wait, run or owe a callback (setting max-tasks)");
  }
  if (queue_.unsettled_bytes() + arriving_bytes_ + bytes > limits_.bytes) {
    return Full("what tasks hold may have " + HumanBytes(limits_.bytes) + " (setting task-bytes)");
  }
  return OkStatus();
}

Status TaskService::CheckHand(const FunctionKey& function, uint64_t bytes) const {
  if (arriving_bytes_ + bytes > limits_.in_hand()) return Full("too many bodies arrive at once");
  const auto it = arriving_of_.find(function);
  const uint64_t others = it == arriving_of_.end() ? 0 : it->second;
  if (others + bytes <= limits_.in_hand_of_one()) return OkStatus();
  return Full("too many bodies for function " + function.name + " arrive at once");
}

void TaskService::Arrive(const FunctionKey& function, uint64_t bytes) {
  arriving_bytes_ += bytes;
  arriving_of_[function] += bytes;
}

void TaskService::Arrived(const FunctionKey& function, uint64_t bytes) {
  arriving_bytes_ -= bytes;
  const auto it = arriving_of_.find(function);
  if (it != arriving_of_.end() && (it->second -= bytes) == 0) arriving_of_.erase(it);
}

Status TaskService::CheckDisk(uint64_t bytes) const {
  PULGA_ASSIGN_OR_RETURN(const uint64_t free, FreeDiskBytes(parts_.data_dir));
  if (free >= parts_.reserve_bytes() + bytes) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "only " + HumanBytes(free) + " of the disk are free, and " +
                   HumanBytes(parts_.reserve_bytes()) + " are kept (setting reserve-bytes)"};
}

Result<std::unique_ptr<Tasks::Draft>> TaskService::NewTask(TaskOrder order) {
  if (stopping_) return Stopping();
  const VersionPtr version = parts_.version(order.function);
  if (version == nullptr) {
    return Error{Code::kNotFound, 0,
                 "function " + Printable(order.function.name, 80) + " does not exist"};
  }
  if (order.callback) {
    const auto target = ParseCallbackUrl(order.callback->url, parts_.networks());
    if (!target.ok()) return target.error();
    if (order.callback_scope == CallbackScope::kThisBoard &&
        !std::holds_alternative<GatewayCall>(*target)) {
      return Error{Code::kInvalidArgument, 0,
                   "X-Callback-Url: a function may name http://gateway:8080/function/NAME alone"};
    }
  }
  const uint64_t bytes = order.content_length.value_or(0);
  const uint64_t most = version->spec.limits.body_bytes;
  PULGA_RETURN_IF_ERROR(CheckBody(order.function, bytes, limits_.message_bytes, most));
  const uint64_t stored = StoredBytes(order) + bytes;
  PULGA_RETURN_IF_ERROR(CheckRoom(stored));
  PULGA_RETURN_IF_ERROR(CheckDisk(stored));
  return std::unique_ptr<Draft>(std::make_unique<DraftImpl>(*this, std::move(order), most));
}

void TaskService::Submit(TaskOrder order, std::string body,
                         std::function<void(Result<std::string>)> done) {
  order.request.body = std::move(body);
  const uint64_t bytes = StoredBytes(order);
  Status fits = stopping_ ? Status(Stopping()) : CheckRoom(bytes);
  if (fits.ok()) fits = StartThread();
  if (!fits.ok()) {
    parts_.loop.Post([done, error = fits.error()] { done(error); });
    return;
  }
  TaskChange change;
  change.kind = TaskChange::Kind::kAdd;
  change.must = TaskChange::Must::kSurvivePowerCut;
  Task& task = change.task;
  task.seq = next_seq_++;
  task.id = std::move(order.id);
  task.function = std::move(order.function);
  task.created_ms = NowMs();
  if (task.id.empty() || queue_.Find(task.id) != nullptr || arriving_.count(task.id) != 0) {
    task.id = RandomUuid();
  }
  change.fires_minute = order.fires_minute;
  if (order.fires_minute) fired_[change.task.function] = *order.fires_minute;
  if (order.callback) {
    task.callback.state = CallbackState::kWaiting;
    task.callback.receiver = ReceiverOf(order.callback->url);
  }
  change.callback = std::move(order.callback);
  change.request = std::move(order.request);
  task.bytes = bytes;
  arriving_.insert(task.id);
  Arrive(task.function, bytes);
  ForgetOld(arriving_bytes_);
  Put(std::move(change), [this, task, bytes, done = std::move(done)](const Status& status) {
    arriving_.erase(task.id);
    Arrived(task.function, bytes);
    if (!status.ok()) return done(status.error());
    std::string id = task.id;
    queue_.Add(task, TimePoint());
    Evaluate();
    done(std::move(id));
  });
}

// --- writing

// Groups by itself: while one transaction is on its way to the disk the next one gathers.
void TaskService::Put(TaskChange change, Done done) {
  unwritten_.push_back({std::move(change), std::move(done)});
  if (!writing_ && retry_timer_ == 0) Flush();
}

void TaskService::Flush() {
  if (writing_ || unwritten_.empty()) return;
  const Status started = StartThread();
  if (!started.ok()) return OnWritten(std::exchange(unwritten_, {}), started);
  writing_ = true;
  auto batch = std::make_shared<std::vector<Write>>(std::exchange(unwritten_, {}));
  auto changes = std::make_shared<std::vector<TaskChange>>();
  for (Write& write : *batch) changes->push_back(std::move(write.change));
  const auto write = [this, changes]() -> Status {
    if (store_ == nullptr) {
      auto store = TaskStore::Open(parts_.data_dir);
      if (!store.ok()) return store.error();
      store_ = std::move(*store);
    }
    return store_->Apply(*changes);
  };
  thread_->Run(write,
               [this, batch, changes, alive = std::weak_ptr<char>(alive_)](const Status& status) {
                 if (alive.expired()) return;
                 writing_ = false;
                 for (size_t i = 0; i < batch->size(); ++i)
                   (*batch)[i].change = std::move((*changes)[i]);
                 OnWritten(std::move(*batch), status);
               });
}

void TaskService::OnWritten(std::vector<Write> batch, const Status& status) {
  if (!status.ok() && !fails_) LogError("tasks are not written: " + status.error().message);
  if (status.ok() && fails_) LogInfo("tasks are written again");
  std::vector<Write> rest;
  std::vector<Done> told;
  for (Write& write : batch) {
    if (write.done) told.push_back(std::exchange(write.done, nullptr));
    // What is new is refused; what happened to the others is written some time.
    const bool again = !status.ok() && write.change.kind != TaskChange::Kind::kAdd;
    if (again) rest.push_back(std::move(write));
  }
  std::move(unwritten_.begin(), unwritten_.end(), std::back_inserter(rest));
  unwritten_ = std::move(rest);
  const bool failed_before = fails_;
  fails_ = !status.ok() && !unwritten_.empty();  // until a write has shown that it does not
  if (fails_) {
    retry_timer_ = parts_.loop.CallAfter(limits_.write_again, [this] {
      retry_timer_ = 0;
      Flush();
    });
  }
  for (const Done& done : told) done(status);
  if (fails_) return;
  Flush();
  if (failed_before) Evaluate();
  if (failed_before || callback_unwritten_) EvaluateCallbacks();
}

void TaskService::Update(const Task& task, std::optional<TaskAnswer> answer) {
  TaskChange change = ChangeTo(task);
  change.answer = std::move(answer);
  Put(std::move(change));
}

// --- running

void TaskService::EvaluateLater(Duration wait) {
  parts_.loop.Cancel(evaluate_timer_);
  evaluate_timer_ = parts_.loop.CallAfter(wait, [this] {
    evaluate_timer_ = 0;
    Evaluate();
  });
}

bool TaskService::MayBegin(const TaskQueue::Lane& lane, TimePoint now, bool* held_back) const {
  const VersionPtr version = parts_.version(lane.function);
  if (version == nullptr) return true;  // it ends at once, as one of a function that is gone
  if (lane.counts.running >= TasksAtOnceOf(*version)) return false;
  if (!holds_.MayBegin(lane, version->id, now)) return false;
  const bool waiting = parts_.waiting_calls(lane.function) > 0;
  *held_back = *held_back || waiting;
  return !waiting;
}

void TaskService::Evaluate() {
  if (!resumed_ || stopping_ || fails_) return;
  const TimePoint now = parts_.loop.Now();
  bool held_back = false;  // by what is no task
  while (queue_.Wake(now)) {
    BoardRoom room = parts_.room();
    room.open_calls -= std::min<uint64_t>(room.open_calls, OpenRuns());
    const uint32_t most = TasksAtOnce(room);
    held_back = held_back || most < room.at_once;
    if (running_.size() >= most) break;
    const auto seq =
        queue_.Next([&](const TaskQueue::Lane& lane) { return MayBegin(lane, now, &held_back); });
    if (!seq) break;
    if (!StartThread().ok()) return EvaluateLater(limits_.write_again);
    Begin(*seq);
  }
  if (held_back) return EvaluateLater(kLookAgain);
  std::optional<TimePoint> due = queue_.NextDue();
  const auto released = holds_.NextDue(now);
  if (released && (!due || *released < *due)) due = released;
  if (due) EvaluateLater(*due - now);
}

uint64_t TaskService::OpenRuns() const {
  const auto calls = std::count_if(running_.begin(), running_.end(),
                                   [](const auto& run) { return run.second != nullptr; });
  return static_cast<uint64_t>(calls);
}

void TaskService::Begin(uint64_t seq) {
  const Task& task = queue_.Begin(seq, NowMs());
  const VersionPtr version = parts_.version(task.function);
  queue_.CountTurn(seq, version == nullptr ? 100 : version->spec.scale.weight);
  running_[seq] = nullptr;
  Put(ChangeTo(task), [this, seq](const Status& status) { OnBegun(seq, status); });
}

// A task that ends daemons must have left its mark before it is run.
void TaskService::OnBegun(uint64_t seq, const Status& status) {
  if (running_.count(seq) == 0) return;  // cancelled meanwhile
  if (!status.ok() || stopping_) return PutBackUntried(seq);
  thread_->Run([this, seq] { return store_->RequestOf(seq); },
               [this, seq, alive = std::weak_ptr<char>(alive_)](Result<TaskRequest> request) {
                 if (!alive.expired()) OnRequest(seq, std::move(request));
               });
}

void TaskService::PutBackUntried(uint64_t seq) {
  running_.erase(seq);
  Update(Untried(seq));
}

const Task& TaskService::Untried(uint64_t seq) {
  return queue_.PutBack(seq, parts_.loop.Now(), [](Task& changed) { --changed.attempts; });
}

void TaskService::OnRequest(uint64_t seq, Result<TaskRequest> request) {
  const auto it = running_.find(seq);
  if (it == running_.end()) return;  // cancelled meanwhile
  if (stopping_) return PutBackUntried(seq);
  const Task& task = *queue_.At(seq);
  if (!request.ok()) {
    LogError("task " + task.id + ": " + request.error().message);
    TaskRunEnd lost;
    lost.end = {{OutcomeKind::kSetupFailed, 0, "request"}, 503};
    return OnEnd(seq, std::move(lost));
  }
  InvocationRequest call;
  call.function = task.function;
  call.call_id = task.id;
  call.method = "POST";
  call.path = std::move(request->path);
  call.query = std::move(request->query);
  call.headers = std::move(request->headers);
  call.headers.emplace_back("X-Call-Id", task.id);
  it->second =
      std::make_unique<TaskRun>(parts_.clock, limits_.message_bytes, watch_,
                                [this, seq](TaskRunEnd end) { OnEnd(seq, std::move(end)); });
  it->second->Start(parts_.invoke, std::move(call), std::move(request->body));
}

void TaskService::OnEnd(uint64_t seq, TaskRunEnd end) {
  running_.erase(seq);  // with its call, which takes no place any more
  if (stopping_ && CutByStop(end.end)) return PutBackUntried(seq);
  const Task& task = *queue_.At(seq);
  const VersionPtr version = parts_.version(task.function);
  const TaskVerdict verdict = Judge(task, end.end, RulesOf(task.function));
  const TimePoint now = parts_.loop.Now();
  const bool refused = verdict.counts == TaskVerdict::Counts::kNot;
  if (refused && version != nullptr) {
    holds_.NoteRefused(task.function, version->id, now, end.end.retry_after);
  } else {
    holds_.Clear(task.function);
  }
  if (verdict.state != TaskState::kQueued) return EndTask(seq, verdict.state, end);
  const int64_t at_ms = NowMs() + std::chrono::duration_cast<milliseconds>(verdict.wait).count();
  Update(queue_.PutBack(seq, now + verdict.wait, [&](Task& changed) {
    changed.not_before_ms = refused ? 0 : at_ms;
    changed.outcome = OutcomeName(end.end.outcome);
    if (refused) --changed.attempts;
    if (verdict.counts == TaskVerdict::Counts::kAsInterrupt) ++changed.interrupts;
  }));
  Evaluate();
}

void TaskService::EndTask(uint64_t seq, TaskState state, const TaskRunEnd& end) {
  const Task& task = queue_.End(seq, state, parts_.clock.Now(), [&](Task& changed) {
    changed.ended_ms = NowMs();
    changed.bytes = StoredBytes(end.answer);
    changed.outcome = OutcomeName(end.end.outcome);
    changed.status = end.end.status;
    changed.function_seconds = end.seconds;
    OweCallback(changed);
  });
  Update(task, end.answer);
  DropCallbacks();
  ForgetOld(0);
  Evaluate();
  EvaluateCallbacks();
}

// --- forgetting

void TaskService::Forget(uint64_t seq, Done done) {
  queue_.Forget(seq);
  TaskChange change;
  change.kind = TaskChange::Kind::kForget;
  change.task.seq = seq;
  if (done) change.must = TaskChange::Must::kSurvivePowerCut;
  Put(std::move(change), std::move(done));
}

void TaskService::ForgetOld(uint64_t more) {
  const TimePoint since = parts_.clock.Now() - limits_.keep_ended;
  for (const uint64_t seq : queue_.Forgettable(limits_, since, more)) Forget(seq);
  if (forget_timer_ != 0 || queue_.ended() == 0) return;
  forget_timer_ = parts_.loop.CallAfter(kForgetInterval, [this] {
    forget_timer_ = 0;
    ForgetOld(0);
  });
}

}  // namespace pulga
