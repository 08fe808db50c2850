#include "runtime/tasks/task_queue.h"

#include <algorithm>

#include "base/check.h"

namespace pulga {

const Task* TaskQueue::Find(const std::string& id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : At(it->second);
}

const Task* TaskQueue::At(uint64_t seq) const {
  const auto it = tasks_.find(seq);
  return it == tasks_.end() ? nullptr : &it->second.task;
}

TaskCounts TaskQueue::Counts(const FunctionKey& function) const {
  const auto it = functions_.find(function);
  return it == functions_.end() ? TaskCounts() : it->second.counts;
}

void TaskQueue::ForEach(const std::function<bool(const Task&)>& tell) const {
  for (auto it = tasks_.rbegin(); it != tasks_.rend(); ++it) {
    if (!tell(it->second.task)) return;
  }
}

// --- changes

TaskQueue::Entry& TaskQueue::Known(uint64_t seq) {
  const auto it = tasks_.find(seq);
  PULGA_CHECK(it != tasks_.end());
  return it->second;
}

void TaskQueue::Enqueue(Entry& entry) {
  entry.task.state = TaskState::kQueued;
  waiting_.emplace(entry.when, entry.task.seq);
  ++functions_[entry.task.function].counts.queued;
  ++totals_.queued;
}

void TaskQueue::Dequeue(const Entry& entry) {
  OfFunction& function = functions_[entry.task.function];
  if (entry.task.state == TaskState::kRunning) {
    --function.counts.running;
    --totals_.running;
    return;
  }
  waiting_.erase({entry.when, entry.task.seq});
  function.ready.erase(entry.task.seq);
  --function.counts.queued;
  --totals_.queued;
}

void TaskQueue::DropIfEmpty(const FunctionKey& function) {
  const auto it = functions_.find(function);
  if (it == functions_.end()) return;
  const TaskCounts& counts = it->second.counts;
  if (counts.queued == 0 && counts.running == 0) functions_.erase(it);
}

void TaskQueue::Add(Task task, TimePoint when) {
  const uint64_t seq = task.seq;
  by_id_.emplace(task.id, seq);
  bytes_ += task.bytes;
  Entry& entry = tasks_.insert_or_assign(seq, Entry{std::move(task), when}).first->second;
  if (HasEnded(entry.task.state)) {
    AddEnded(entry);
  } else {
    Enqueue(entry);
  }
}

void TaskQueue::AddEnded(const Entry& entry) {
  if (IsSettled(entry.task)) {
    ended_.emplace(entry.when, entry.task.seq);
    settled_bytes_ += entry.task.bytes;
  } else {
    owed_.emplace(entry.when, entry.task.seq);
    ++owing_;
    owing_bytes_ += entry.task.bytes;
  }
}

const Task& TaskQueue::Begin(uint64_t seq, int64_t now_ms) {
  Entry& entry = Known(seq);
  PULGA_CHECK(entry.task.state == TaskState::kQueued);
  Dequeue(entry);
  entry.task.state = TaskState::kRunning;
  ++entry.task.attempts;
  entry.task.begun_ms = now_ms;
  ++functions_[entry.task.function].counts.running;
  ++totals_.running;
  return entry.task;
}

const Task& TaskQueue::PutBack(uint64_t seq, TimePoint not_before,
                               const std::function<void(Task&)>& change) {
  Entry& entry = Known(seq);
  PULGA_CHECK(entry.task.state == TaskState::kRunning);
  Dequeue(entry);
  if (change) change(entry.task);
  entry.when = not_before;
  Enqueue(entry);
  return entry.task;
}

const Task& TaskQueue::End(uint64_t seq, TaskState state, TimePoint now,
                           const std::function<void(Task&)>& change) {
  Entry& entry = Known(seq);
  PULGA_CHECK(!HasEnded(entry.task.state) && HasEnded(state));
  Dequeue(entry);
  bytes_ -= entry.task.bytes;
  change(entry.task);
  bytes_ += entry.task.bytes;
  entry.task.state = state;
  entry.when = now;
  AddEnded(entry);
  DropIfEmpty(entry.task.function);
  return entry.task;
}

void TaskQueue::Forget(uint64_t seq) {
  Entry& entry = Known(seq);
  if (IsSettled(entry.task)) {
    ended_.erase({entry.when, seq});
    settled_bytes_ -= entry.task.bytes;
  } else if (HasEnded(entry.task.state)) {
    owed_.erase({entry.when, seq});
    --owing_;
    owing_bytes_ -= entry.task.bytes;
  } else {
    Dequeue(entry);
    DropIfEmpty(entry.task.function);
  }
  bytes_ -= entry.task.bytes;
  by_id_.erase(entry.task.id);
  tasks_.erase(seq);
}

void TaskQueue::BeginCallback(uint64_t seq) {
  const Entry& entry = Known(seq);
  PULGA_CHECK(entry.task.callback.state == CallbackState::kOwed);
  owed_.erase({entry.when, seq});
}

const Task& TaskQueue::PutBackCallback(uint64_t seq, TimePoint not_before,
                                       const std::function<void(TaskCallback&)>& change) {
  Entry& entry = Known(seq);
  change(entry.task.callback);
  PULGA_CHECK(entry.task.callback.state == CallbackState::kOwed);
  entry.when = not_before;
  owed_.emplace(entry.when, seq);
  return entry.task;
}

const Task& TaskQueue::EndCallback(uint64_t seq, TimePoint now,
                                   const std::function<void(TaskCallback&)>& change) {
  Entry& entry = Known(seq);
  owed_.erase({entry.when, seq});
  --owing_;
  owing_bytes_ -= entry.task.bytes;
  change(entry.task.callback);
  entry.when = now;
  AddEnded(entry);
  return entry.task;
}

// --- decisions

bool TaskQueue::Wake(TimePoint now) {
  while (!waiting_.empty() && waiting_.begin()->first <= now) {
    const uint64_t seq = waiting_.begin()->second;
    waiting_.erase(waiting_.begin());
    functions_[Known(seq).task.function].ready.insert(seq);
  }
  return totals_.queued > waiting_.size();
}

std::optional<uint64_t> TaskQueue::Next(const std::function<bool(const Lane&)>& may) const {
  const OfFunction* first = nullptr;
  for (const auto& [key, function] : functions_) {
    if (function.ready.empty()) continue;
    const auto turn = [this](const OfFunction& f) {
      return std::pair(turns_.PassFrom(f.pass), *f.ready.begin());
    };
    if (first != nullptr && turn(*first) <= turn(function)) continue;
    if (may({key, function.counts})) first = &function;
  }
  if (first == nullptr) return std::nullopt;
  return *first->ready.begin();
}

void TaskQueue::CountTurn(uint64_t seq, uint32_t weight) {
  OfFunction& function = functions_[Known(seq).task.function];
  function.pass = turns_.Started(function.pass, Taking{1, weight});
}

std::optional<TimePoint> TaskQueue::NextDue() const {
  if (waiting_.empty()) return std::nullopt;
  return waiting_.begin()->first;
}

std::optional<uint64_t> TaskQueue::NextCallback(TimePoint now,
                                                const std::function<bool(const Task&)>& may) const {
  for (const auto& [due, seq] : owed_) {
    if (due > now) break;
    if (may(*At(seq))) return seq;
  }
  return std::nullopt;
}

std::optional<TimePoint> TaskQueue::NextCallbackDue(TimePoint now) const {
  const auto later = owed_.upper_bound({now, UINT64_MAX});
  if (later == owed_.end()) return std::nullopt;
  return later->first;
}

std::optional<uint64_t> TaskQueue::ExcessCallback(const TaskLimits& limits) const {
  if (owing_ <= limits.owing() && owing_bytes_ <= limits.owing_bytes()) return std::nullopt;
  struct Owed {
    uint64_t bytes = 0;
    uint64_t oldest = UINT64_MAX;
  };
  std::map<FunctionKey, Owed> by_function;
  for (const auto& [due, seq] : owed_) {
    Owed& owed = by_function[At(seq)->function];
    owed.bytes += At(seq)->bytes + 1;
    owed.oldest = std::min(owed.oldest, seq);
  }
  const auto most = std::max_element(
      by_function.begin(), by_function.end(),
      [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
  if (most == by_function.end()) return std::nullopt;  // all of them are being sent
  return most->second.oldest;
}

std::vector<uint64_t> TaskQueue::Forgettable(const TaskLimits& limits, TimePoint ended_before,
                                             uint64_t more) const {
  std::vector<uint64_t> gone;
  uint64_t left = bytes_;
  for (const auto& [ended, seq] : ended_) {
    const bool too_many = ended_.size() - gone.size() > limits.ended;
    const bool too_large = left + more > limits.bytes;
    if (ended >= ended_before && !too_many && !too_large) break;
    gone.push_back(seq);
    left -= At(seq)->bytes;
  }
  return gone;
}

}  // namespace pulga
