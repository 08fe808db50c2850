// ScheduleKeeper: functions with a schedule are called when it says so, as tasks: also scaled to
// zero, and a call that is due when the daemon dies is made by the next one. Looks once a minute.
// The minute of a firing is stored with its task, in one commit: no minute fires twice, whatever
// ends in between. Loop thread. On failure (the queue is full): a log line; the time is missed.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/clock.h"
#include "base/event_loop.h"
#include "runtime/tasks/schedule_plan.h"
#include "runtime/tasks/tasks.h"
#include "runtime/version.h"

namespace pulga {

struct ScheduleParts {
  EventLoop& loop;
  const Clock& clock;
  Tasks& tasks;
  // Tells the active version of each function.
  std::function<void(const std::function<void(const Version&)>&)> for_each;
};

class ScheduleKeeper {
 public:
  explicit ScheduleKeeper(ScheduleParts parts) : parts_(std::move(parts)) {}
  ~ScheduleKeeper() { parts_.loop.Cancel(timer_); }

  // Looks now, and then at the beginning of each minute.
  void Start();
  void Stop();

 private:
  void Look();
  void LookAt(const Version& version, int64_t now_minute);
  void Fire(const FunctionKey& function, int64_t minute);

  ScheduleParts parts_;
  EventLoop::TimerId timer_ = 0;
  std::map<FunctionKey, int64_t> seen_;         // up to which minute, since this started
  std::map<FunctionKey, std::string> waiting_;  // the last task of each
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace pulga
