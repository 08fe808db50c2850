// The part of TaskService that sends answers to where their callers want them.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "runtime/tasks/task_service.h"

namespace pulga {
namespace {

// Each may be a process of its own for a while, and one receiver may be slow.
constexpr size_t kCallbacksAtOnce = 3;
constexpr ptrdiff_t kCallbacksOfOneFunction = 2;

}  // namespace

bool TaskService::MaySend(const FunctionKey& function) const {
  const auto of_it = [&](const auto& run) { return queue_.At(run.first)->function == function; };
  return std::count_if(sending_.begin(), sending_.end(), of_it) < kCallbacksOfOneFunction;
}

void TaskService::EvaluateCallbacks() {
  if (!resumed_ || stopping_ || fails_) return;
  const TimePoint now = parts_.loop.Now();
  std::optional<TimePoint> due;
  while (sending_.size() < kCallbacksAtOnce) {
    const auto may = [this](const FunctionKey& function) { return MaySend(function); };
    const auto seq = queue_.NextCallback(now, may);
    if (!seq) break;
    if (!StartThread().ok()) {
      due = now + limits_.write_again;
      break;
    }
    BeginCallback(*seq);
  }
  if (!due) due = queue_.NextCallbackDue(now);
  parts_.loop.Cancel(std::exchange(callback_timer_, 0));
  if (!due) return;
  callback_timer_ = parts_.loop.CallAfter(*due - now, [this] {
    callback_timer_ = 0;
    EvaluateCallbacks();
  });
}

void TaskService::BeginCallback(uint64_t seq) {
  queue_.BeginCallback(seq);
  sending_[seq] = nullptr;
  // Behind the write of the answer: what is sent is on disk.
  const auto read = [this, seq]() -> Result<OwedCallback> {
    OwedCallback owed;
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
  if (!owed.ok()) return OnCallbackEnd(seq, owed.error());
  const auto target = ParseCallbackUrl(owed->order.url, parts_.networks());
  if (!target.ok()) return OnCallbackEnd(seq, target.error());
  const Task& task = *queue_.At(seq);
  CallbackMessage message;
  message.headers = CallbackHeaders(task, owed->order.invoked_as, owed->answer.headers);
  message.body = std::move(owed->answer.body);
  it->second = std::make_unique<CallbackRun>(
      parts_.clock, watch_, [this, seq](const Result<int>& status) { OnCallbackEnd(seq, status); });
  if (const auto* call = std::get_if<GatewayCall>(&*target)) {
    it->second->Start(parts_.invoke, task.id, *call, std::move(message));
  } else {
    it->second->Start(parts_.post, std::get<Url>(*target), message);
  }
}

void TaskService::OnCallbackEnd(uint64_t seq, const Result<int>& status) {
  const uint32_t tries = queue_.At(seq)->callback.tries + 1;
  const CallbackVerdict verdict = JudgeCallback(tries, status);
  sending_.erase(seq);                                                  // with `status`
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

}  // namespace pulga
