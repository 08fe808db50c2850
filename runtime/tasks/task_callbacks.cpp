// The part of TaskService that sends answers to where their callers want them.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "runtime/tasks/callback_signature.h"
#include "runtime/tasks/task_service.h"

namespace pulga {
namespace {

// Each may be a process of its own for a while, and one receiver may be slow.
constexpr size_t kCallbacksAtOnce = 3;
constexpr ptrdiff_t kCallbacksOfOneFunction = 2;
constexpr size_t kCallbacksToOneReceiver = 2;
constexpr ptrdiff_t kRetriesAtOnce = 2;  // a place is left to those that were not tried yet
constexpr Duration kRoomInterval = std::chrono::seconds(1);
constexpr size_t kMostErrorBytes = 200;
constexpr Duration kTellInterval = std::chrono::minutes(1);

// What there is to say of a callback to the queue itself.
CallbackEnd QueuedEnd(const Result<std::string>& id) {
  if (id.ok()) return {202, true, {}};
  if (id.error().code == Code::kNotFound) return {404, true, {}};
  if (id.error().code == Code::kTooLarge) return {413, true, {}};
  return {id.error(), false, {}};
}

}  // namespace

bool TaskService::MaySend(const Task& task, TimePoint now, bool room) {
  const auto count = [this](const auto& is) {
    return std::count_if(sending_.begin(), sending_.end(),
                         [&](const auto& run) { return is(*queue_.At(run.first)); });
  };
  const std::string& receiver = task.callback.receiver;
  const auto of_it = [&](const Task& other) { return other.function == task.function; };
  const auto to_it = [&](const Task& other) { return other.callback.receiver == receiver; };
  const auto again = [](const Task& other) { return other.callback.tries > 0; };
  if (count(of_it) >= kCallbacksOfOneFunction) return false;
  if (again(task) && count(again) >= kRetriesAtOnce) return false;
  if (!callback_holds_.MaySend(receiver, static_cast<size_t>(count(to_it)), kCallbacksToOneReceiver,
                               now)) {
    return false;
  }
  if (IsFunctionReceiver(receiver)) {
    if (!room) return false;
  } else if (!callback_holds_.MaySend(CallbackHolds::kAllPosts, sending_.size(), kCallbacksAtOnce,
                                      now)) {
    return false;
  }
  // Not read before it is on its way to the disk: else the read would be ahead of it.
  const bool unwritten = UnwrittenAnswer(task.seq) != nullptr;
  callback_unwritten_ = callback_unwritten_ || unwritten;
  return !unwritten;
}

void TaskService::EvaluateCallbacks() {
  if (!resumed_ || stopping_ || fails_) return;
  const TimePoint now = parts_.loop.Now();
  std::optional<TimePoint> due;
  const bool room = queue_.owing() == 0 || TasksAtOnce(parts_.room()) > 0;
  callback_unwritten_ = false;
  while (sending_.size() < kCallbacksAtOnce) {
    const auto may = [&](const Task& task) { return MaySend(task, now, room); };
    const auto seq = queue_.NextCallback(now, may);
    if (!seq) break;
    if (!StartThread().ok()) {
      due = now + limits_.write_again;
      break;
    }
    BeginCallback(*seq);
  }
  if (!due) {
    for (const auto next : {queue_.NextCallbackDue(now), callback_holds_.NextDue(now)}) {
      if (next) due = std::min(due.value_or(*next), *next);
    }
    if (!room) due = std::min(due.value_or(now + kRoomInterval), now + kRoomInterval);
  }
  parts_.loop.Cancel(std::exchange(callback_timer_, 0));
  if (!due || queue_.owing() == 0) return;
  callback_timer_ = parts_.loop.CallAfter(*due - now, [this] {
    callback_timer_ = 0;
    EvaluateCallbacks();
  });
}

void TaskService::BeginCallback(uint64_t seq) {
  queue_.BeginCallback(seq);
  sending_[seq] = nullptr;
  // Behind the write of the answer: what is sent is on disk.
  const auto read = [this, seq, key = parts_.callback_key()]() -> Result<OwedCallback> {
    OwedCallback owed{{}, {}, ReadSigningKey(key)};
    PULGA_ASSIGN_OR_RETURN(owed.order, store_->CallbackOf(seq));
    PULGA_ASSIGN_OR_RETURN(owed.answer, store_->AnswerOf(seq));
    return owed;
  };
  thread_->Run(read, [this, seq, alive = std::weak_ptr<char>(alive_)](Result<OwedCallback> owed) {
    if (!alive.expired()) OnOwed(seq, std::move(owed));
  });
}

void TaskService::OnOwed(uint64_t seq, Result<OwedCallback> owed) {
  const auto it = sending_.find(seq);
  if (it == sending_.end() || stopping_) return;
  if (!owed.ok()) return OnCallbackEnd(seq, {owed.error(), true, {}});
  const auto target = ParseCallbackUrl(owed->order.url, parts_.networks());
  if (!target.ok()) return OnCallbackEnd(seq, {target.error(), true, {}});
  // It waits rather than go unsigned.
  if (!owed->key.ok()) return OnCallbackEnd(seq, {owed->key.error(), false, {}});
  const Task& task = *queue_.At(seq);
  CallbackMessage message;
  message.headers = CallbackHeaders(task, owed->order.invoked_as, owed->answer.headers);
  message.body = std::move(owed->answer.body);
  if (!owed->key->empty()) {
    HeaderList signed_by = SignatureHeaders(*owed->key, task.id, NowMs() / 1000, message.body);
    std::move(signed_by.begin(), signed_by.end(), std::back_inserter(message.headers));
  }
  const auto* call = std::get_if<GatewayCall>(&*target);
  if (call != nullptr && call->queued) return QueueCallback(seq, *call, std::move(message));
  it->second = std::make_unique<CallbackRun>(
      parts_.clock, watch_, [this, seq](const CallbackEnd& end) { OnCallbackEnd(seq, end); });
  if (call != nullptr) {
    it->second->Start(parts_.invoke, task.id, *call, std::move(message));
  } else {
    it->second->Start(parts_.post, std::get<Url>(*target), message);
  }
}

void TaskService::QueueCallback(uint64_t seq, GatewayCall call, CallbackMessage message) {
  TaskOrder order;
  order.function = std::move(call.function);
  order.content_length = message.body.size();
  order.request.path = std::move(call.path);
  order.request.query = std::move(call.query);
  order.request.headers = std::move(message.headers);
  // The new task's id is its own.
  std::erase_if(order.request.headers,
                [](const auto& header) { return EqualsIgnoreCase(header.first, "X-Call-Id"); });
  const auto end = [this, seq, alive = std::weak_ptr<char>(alive_)](const Result<std::string>& id) {
    if (!alive.expired() && sending_.count(seq) != 0) OnCallbackEnd(seq, QueuedEnd(id));
  };
  auto draft = NewTask(std::move(order));
  if (!draft.ok()) return end(draft.error());
  const Status taken = (*draft)->Append(message.body);
  if (!taken.ok()) return end(taken.error());
  (*draft)->Submit(end);
}

// This board could not try: it waits without a try less, and so do the others that would need the
// same.
void TaskService::HoldCallback(uint64_t seq, const CallbackEnd& end) {
  const TimePoint now = parts_.loop.Now();
  const std::string receiver = queue_.At(seq)->callback.receiver;
  const std::string error = end.status.ok()
                                ? "this board answered " + std::to_string(*end.status)
                                : Printable(end.status.error().message, kMostErrorBytes);
  sending_.erase(seq);  // with `end`
  if (!stopping_) {
    callback_holds_.NoteFailed(IsFunctionReceiver(receiver) ? receiver : CallbackHolds::kAllPosts,
                               now, end.retry_after);
  }
  const TimePoint next = now + HoldAfter(1, end.retry_after);
  Update(
      queue_.PutBackCallback(seq, next, [&](TaskCallback& callback) { callback.error = error; }));
  EvaluateCallbacks();
}

void TaskService::OnCallbackEnd(uint64_t seq, const CallbackEnd& end) {
  if (!end.tried) return HoldCallback(seq, end);
  const TaskCallback& callback_now = queue_.At(seq)->callback;
  const uint32_t tries = callback_now.tries + 1;
  const CallbackVerdict verdict = JudgeCallback(tries, end.status);
  callback_holds_.Clear(CallbackHolds::kAllPosts);
  if (end.status.ok()) {
    callback_holds_.Clear(callback_now.receiver);
  } else {
    callback_holds_.NoteFailed(callback_now.receiver, parts_.loop.Now(), Duration::zero());
  }
  sending_.erase(seq);                                                  // with `end`
  if (stopping_ && verdict.state != CallbackState::kDelivered) return;  // the stop may have cut it
  const TimePoint now = parts_.loop.Now();
  const int64_t wait_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(verdict.wait).count();
  const auto change = [&](TaskCallback& callback) {
    callback.state = verdict.state;
    callback.tries = tries;
    callback.not_before_ms = verdict.state == CallbackState::kOwed ? NowMs() + wait_ms : 0;
    callback.error = verdict.error;
  };
  if (verdict.state == CallbackState::kOwed) {
    Update(queue_.PutBackCallback(seq, now + verdict.wait, change));
  } else {
    const Task& task = queue_.EndCallback(seq, parts_.clock.Now(), change);
    if (verdict.state == CallbackState::kGivenUp) {
      LogWarning("the callback of task " + task.id + " is given up: " + verdict.error);
    }
    Update(task);
    ForgetOld(0);
  }
  EvaluateCallbacks();
}

void TaskService::DropCallbacks() {
  uint64_t dropped = 0;
  while (const auto seq = queue_.ExcessCallback(limits_)) {
    Update(queue_.EndCallback(*seq, parts_.clock.Now(), [](TaskCallback& callback) {
      callback.state = CallbackState::kGivenUp;
      callback.not_before_ms = 0;
      callback.error = "more callbacks wait than tasks may hold (settings max-tasks, task-bytes)";
    }));
    ++dropped;
  }
  const TimePoint now = parts_.loop.Now();
  if (dropped == 0 || (drop_told_ != TimePoint() && now - drop_told_ < kTellInterval)) return;
  drop_told_ = now;
  LogWarning("callbacks are given up: more wait than half of what tasks may hold");
}

}  // namespace pulga
