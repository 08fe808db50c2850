// The rules of the task queue that need no queue: what an ended attempt means for its task, how
// long a try waits for the next one, how many tasks the board can spare room for. Pure.
// Source: docs/async.md; OpenFaaS Pro, "Retries" (com.openfaas.retry.*).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "runtime/function_spec.h"
#include "runtime/sense/pressure.h"
#include "runtime/tasks/task.h"
#include "runtime/version.h"

namespace pulga {

// Of a function's annotations com.openfaas.retry.*; without `attempts` nothing is tried again.
struct RetryRules {
  uint32_t attempts = 1;  // in all, the first one included
  std::set<int> codes = {408, 429, 500, 502, 503, 504};
  Duration min_wait = std::chrono::seconds(10);
  Duration max_wait = std::chrono::seconds(120);
};
// kInvalidArgument names the annotation.
Result<RetryRules> ParseRetryRules(const std::map<std::string, std::string>& annotations);

// How an attempt ended. `status`: the function's own, or what the outcome means in HTTP.
struct AttemptEnd {
  Outcome outcome;
  int status = 0;
  bool begun = true;        // an instance was given to it
  Duration retry_after{0};  // what a refusal asks for
};

// So often may a task be cut short (a daemon killed, a launcher lost) before it is given up: it may
// be what ends them.
inline constexpr uint32_t kMostInterrupts = 10;

struct TaskVerdict {
  TaskState state = TaskState::kDone;  // kQueued: again, after `wait`
  Duration wait{0};
  enum class Counts : uint8_t {
    kAsTry,
    kAsInterrupt,  // it may have run in part, by no fault of its own
    kNot,          // it never began: its function's tasks wait together (LaneHolds)
  } counts = Counts::kAsTry;
};
// `task` with this attempt counted already.
TaskVerdict Judge(const Task& task, const AttemptEnd& end, const RetryRules& rules);

// No instance was given to it: memory, pressure, a full queue, a start that failed.
bool NeverBegan(const AttemptEnd& end);
// By a launcher that was lost.
bool WasCutShort(const AttemptEnd& end);
// May an end that came while the daemon stops be the stop's doing? Then it says nothing about the
// task, which waits for the next start.
bool CutByStop(const AttemptEnd& end);

// How long a function's tasks wait after the `refused`-th one in a row that never began.
inline constexpr Duration kLongestHold = std::chrono::seconds(30);
Duration HoldAfter(uint32_t refused, Duration at_least);

// What is left of a stored task's wait at a start. A board without a clock of its own may start
// years off: nobody waits longer for that than for a retry.
Duration WaitAfterLoad(const Task& task, int64_t now_ms, const RetryRules& rules);
Duration WaitLeft(int64_t not_before_ms, int64_t now_ms, Duration most);
// Likewise how long ago it ended; 0 if its end is yet to come.
Duration AgeAfterLoad(const Task& task, int64_t now_ms);

// What the board can spare.
struct BoardRoom {
  uint32_t at_once = 1;  // tasks, on a board where nothing else goes on
  PressureLevel pressure = PressureLevel::kCalm;
  uint64_t open_calls = 0;       // that somebody waits for
  bool calls_need_room = false;  // one of them waits for memory, or for a place
};
// 0 while the board sheds load or a call waits for memory; calls under way, for however long, leave
// room for one.
uint32_t TasksAtOnce(const BoardRoom& room);

// Annotation "pulga.async.parallel", or half of what the function takes at once, at least one: so
// that a call beside its tasks finds a place.
inline constexpr const char* kParallelAnnotation = "pulga.async.parallel";
uint32_t TasksAtOnceOf(const Version& version);
// What is wrong with a function's annotations about tasks and schedules, as warnings of its deploy.
std::vector<std::string> TaskWarnings(const std::map<std::string, std::string>& annotations);

}  // namespace pulga
