// LaneHolds: functions whose tasks could not begin (no instance for them: memory, pressure, starts
// that fail), and until when the next of them waits. The wait doubles while nothing begins, and
// then one task at a time asks. Pure: time comes in as a value. Loop thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "base/clock.h"
#include "runtime/function_spec.h"
#include "runtime/tasks/task_queue.h"

namespace pulga {

class LaneHolds {
 public:
  // A task of this version got no instance. `at_least`: what it was told to wait.
  void NoteRefused(const FunctionKey& function, uint64_t version, TimePoint now, Duration at_least);
  // One has been given to a function, or the function is gone.
  void Clear(const FunctionKey& function) { holds_.erase(function); }
  // Another version than the one that was refused is asked at once.
  bool MayBegin(const TaskQueue::Lane& lane, uint64_t version, TimePoint now) const;
  // The first moment after `now` at which one of them may be asked again.
  std::optional<TimePoint> NextDue(TimePoint now) const;

 private:
  struct Hold {
    uint64_t version = 0;
    uint32_t refused = 0;  // in a row
    TimePoint until;
  };
  std::map<FunctionKey, Hold> holds_;
};

}  // namespace pulga
