// TaskQueue: every task there is, and whose turn is next. Between functions turns go by
// scale.weight (policy/turns: start-time fair), within one by arrival. Pure: no clock, no disk;
// time comes in as a value. Loop thread. Cheap to ask: O(log n) a change, a look at each function
// that waits a start.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "runtime/policy/turns.h"
#include "runtime/tasks/task.h"

namespace pulga {

struct TaskLimits {
  uint32_t unended = 5000;                         // tasks that wait or run
  uint32_t ended = 1000;                           // kept to be asked about
  uint64_t bytes = 64ULL << 20;                    // of requests and answers, on disk
  uint64_t message_bytes = 1 << 20;                // of one request or answer
  Duration keep_ended = std::chrono::minutes(20);  // then it is forgotten
  uint64_t bytes_in_hand = 16ULL << 20;            // of requests not yet on disk, in memory
  Duration write_again = std::chrono::seconds(2);  // after a write that failed
  bool operator==(const TaskLimits&) const = default;

  // Of those, answers on their way to somebody (callbacks): the rest is for others' tasks.
  uint32_t owing() const { return std::max(unended / 2, 1U); }
  uint64_t owing_bytes() const { return std::max(bytes / 2, message_bytes); }
  // One message always fits; no function has all of it to itself where more than four fit.
  uint64_t in_hand() const { return std::max(bytes_in_hand, message_bytes); }
  uint64_t in_hand_of_one() const { return std::max(in_hand() / 4, message_bytes); }
};

struct TaskCounts {
  uint32_t queued = 0;
  uint32_t running = 0;
};

class TaskQueue {
 public:
  // --- what there is. Pointers hold until the task is changed or forgotten.
  const Task* Find(const std::string& id) const;
  const Task* At(uint64_t seq) const;
  TaskCounts Counts(const FunctionKey& function) const;
  TaskCounts totals() const { return totals_; }
  uint32_t ended() const { return static_cast<uint32_t>(ended_.size()) + owing_; }
  uint32_t owing() const { return owing_; }  // of those, a callback
  uint64_t bytes() const { return bytes_; }
  uint64_t unsettled_bytes() const { return bytes_ - settled_bytes_; }
  // From the newest; until `tell` says no.
  void ForEach(const std::function<bool(const Task&)>& tell) const;

  // --- changes, each of a task that is in the state they need
  // Any state. `when`: until when it waits or its callback does or, if it is settled, since when.
  void Add(Task task, TimePoint when);
  const Task& Begin(uint64_t seq, int64_t now_ms);  // queued -> running
  // running -> queued. `change` may adjust what counts; the state is not its business.
  const Task& PutBack(uint64_t seq, TimePoint not_before, const std::function<void(Task&)>& change);
  // queued or running -> ended
  const Task& End(uint64_t seq, TaskState state, TimePoint now,
                  const std::function<void(Task&)>& change);
  void Forget(uint64_t seq);
  // Of one that owes a callback: which is tried now; waits for the next try; is over.
  void BeginCallback(uint64_t seq);
  const Task& PutBackCallback(uint64_t seq, TimePoint not_before,
                              const std::function<void(TaskCallback&)>& change);
  const Task& EndCallback(uint64_t seq, TimePoint now,
                          const std::function<void(TaskCallback&)>& change);

  // --- decisions
  struct Lane {
    const FunctionKey& function;
    TaskCounts counts;
  };
  // After Wake: the task to begin now, of the functions that `may` run one more; none: none may.
  std::optional<uint64_t> Next(const std::function<bool(const Lane&)>& may) const;
  // Its function has had a turn, at this weight.
  void CountTurn(uint64_t seq, uint32_t weight);
  // Those whose time has come may be next from now on. Is there any that may?
  bool Wake(TimePoint now);
  // When the first of the others is due.
  std::optional<TimePoint> NextDue() const;
  // The callback to be tried now, of those that `may`.
  std::optional<uint64_t> NextCallback(TimePoint now,
                                       const std::function<bool(const Task&)>& may) const;
  // When the first is due that is not.
  std::optional<TimePoint> NextCallbackDue(TimePoint now) const;
  // Where more callbacks are owed than the limits have room for, the oldest that waits of the
  // function that owes most.
  std::optional<uint64_t> ExcessCallback(const TaskLimits& limits) const;
  // What is to be forgotten: ended before `ended_before`, beyond the limits on the number of those
  // kept, and, the oldest first, as many as make room for `more` bytes.
  std::vector<uint64_t> Forgettable(const TaskLimits& limits, TimePoint ended_before,
                                    uint64_t more) const;

 private:
  struct Entry {
    Task task;
    TimePoint when;  // it may begin, or was settled: not by the wall clock, which may be set
  };
  struct OfFunction {
    uint64_t pass = 0;
    std::set<uint64_t> ready;
    TaskCounts counts;
  };
  Entry& Known(uint64_t seq);
  void Enqueue(Entry& entry);
  void Dequeue(const Entry& entry);
  void DropIfEmpty(const FunctionKey& function);
  void AddEnded(const Entry& entry);

  std::map<uint64_t, Entry> tasks_;
  std::unordered_map<std::string, uint64_t> by_id_;
  std::map<FunctionKey, OfFunction> functions_;       // those with a task that has not ended
  std::set<std::pair<TimePoint, uint64_t>> waiting_;  // for a time
  std::set<std::pair<TimePoint, uint64_t>> ended_;    // and settled; by when
  std::set<std::pair<TimePoint, uint64_t>> owed_;     // callbacks that wait for a try
  TaskCounts totals_;
  uint64_t bytes_ = 0;
  uint64_t settled_bytes_ = 0;  // of these
  uint32_t owing_ = 0;
  uint64_t owing_bytes_ = 0;
  Turns turns_;
};

}  // namespace pulga
