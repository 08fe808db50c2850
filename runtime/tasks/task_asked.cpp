// What is asked of TaskService about tasks that are there: one, several, an answer, its end.
#include <algorithm>
#include <utility>

#include "base/text.h"
#include "runtime/tasks/task_service.h"

namespace pulga {
namespace {

Error NoTask(const std::string& id) {
  return {Code::kNotFound, 0, "there is no task " + Printable(id, 64)};
}

}  // namespace

Result<Task> TaskService::Find(const std::string& id) const {
  const Task* task = queue_.Find(id);
  if (task == nullptr) return NoTask(id);
  return *task;
}

std::vector<Task> TaskService::List(const TaskFilter& filter) const {
  std::vector<Task> tasks;
  queue_.ForEach([&](const Task& task) {
    if (filter.function && task.function != *filter.function) return true;
    if (filter.state && task.state != *filter.state) return true;
    tasks.push_back(task);
    return tasks.size() < filter.most;
  });
  return tasks;
}

std::optional<int64_t> TaskService::LastFired(const FunctionKey& function) const {
  const auto it = fired_.find(function);
  if (it == fired_.end()) return std::nullopt;
  return it->second;
}

TaskTotals TaskService::Totals() const {
  return {queue_.totals(), queue_.ended(), queue_.owing(), queue_.bytes()};
}

void TaskService::AnswerOf(const std::string& id, std::function<void(Result<TaskAnswer>)> done) {
  const Task* task = queue_.Find(id);
  Status known = task == nullptr ? Status(NoTask(id)) : OkStatus();
  if (known.ok() && !HasEnded(task->state)) {
    known = Error{
        Code::kNotFound, 0,
        "task " + id + " has no answer yet: it is " + std::string(TaskStateName(task->state))};
  }
  if (known.ok()) known = StartThread();
  if (!known.ok()) {
    parts_.loop.Post([done, error = known.error()] { done(error); });
    return;
  }
  if (const TaskAnswer* unwritten = UnwrittenAnswer(task->seq)) {
    parts_.loop.Post([done, answer = *unwritten] { done(answer); });
    return;
  }
  thread_->Run([this, seq = task->seq] { return store_->AnswerOf(seq); },
               [this, seq = task->seq, done = std::move(done),
                alive = std::weak_ptr<char>(alive_)](Result<TaskAnswer> answer) {
                 // The write it was in has failed meanwhile, and it waits for the next.
                 const TaskAnswer* unwritten =
                     answer.ok() || alive.expired() ? nullptr : UnwrittenAnswer(seq);
                 if (unwritten != nullptr) answer = *unwritten;
                 done(std::move(answer));
               });
}

const TaskAnswer* TaskService::UnwrittenAnswer(uint64_t seq) const {
  const auto ends = [seq](const Write& write) {
    return write.change.task.seq == seq && write.change.answer.has_value();
  };
  const auto it = std::find_if(unwritten_.begin(), unwritten_.end(), ends);
  return it == unwritten_.end() ? nullptr : &*it->change.answer;
}

void TaskService::Cancel(const std::string& id, std::function<void(Status)> done) {
  const Task* task = queue_.Find(id);
  Status fits = task == nullptr ? Status(NoTask(id)) : OkStatus();
  if (fits.ok() && HasEnded(task->state)) {
    fits = Error{Code::kAlreadyExists, 0,
                 "task " + id + " has ended: it is " + std::string(TaskStateName(task->state))};
  }
  if (!fits.ok()) {
    parts_.loop.Post([done, fits] { done(fits); });
    return;
  }
  running_.erase(task->seq);
  TaskChange change;
  change.must = TaskChange::Must::kSurvivePowerCut;
  change.task =
      queue_.End(task->seq, TaskState::kCancelled, parts_.clock.Now(), [&](Task& changed) {
        changed.ended_ms = NowMs();
        changed.bytes = 0;
        changed.outcome = OutcomeName({OutcomeKind::kCancelled, 0, {}});
        changed.status = OutcomeStatus({OutcomeKind::kCancelled, 0, {}});
        if (changed.callback.state != CallbackState::kWaiting) return;
        changed.callback.state = CallbackState::kGivenUp;
        changed.callback.error = "the task was cancelled";
      });
  Put(std::move(change), std::move(done));
  Evaluate();
}

void TaskService::Remove(const std::string& id, std::function<void(Status)> done) {
  const Task* task = queue_.Find(id);
  if (task == nullptr) {
    parts_.loop.Post([done, error = NoTask(id)] { done(error); });
    return;
  }
  running_.erase(task->seq);
  sending_.erase(task->seq);
  Forget(task->seq, std::move(done));
  Evaluate();
  EvaluateCallbacks();
}

}  // namespace pulga
