#include "runtime/tasks/schedule_keeper.h"

#include <algorithm>

#include "base/log.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;

}  // namespace

void ScheduleKeeper::Start() {
  if (timer_ == 0) Look();
}

void ScheduleKeeper::Stop() {
  parts_.loop.Cancel(timer_);
  timer_ = 0;
}

void ScheduleKeeper::Look() {
  const auto now = parts_.clock.WallTime().time_since_epoch();
  const auto minute = std::chrono::floor<minutes>(now);
  std::map<FunctionKey, int64_t> seen;
  std::swap(seen, seen_);
  parts_.for_each([&](const Version& version) {
    // Of a function that went nothing is kept.
    if (const auto it = seen.find(version.key); it != seen.end()) seen_.insert(*it);
    LookAt(version, minute.count());
  });
  std::erase_if(waiting_, [this](const auto& entry) { return seen_.count(entry.first) == 0; });
  // A little behind the minute's beginning: clocks are slewed.
  timer_ = parts_.loop.CallAfter(minute + minutes(1) - now + milliseconds(20), [this] { Look(); });
}

void ScheduleKeeper::LookAt(const Version& version, int64_t now_minute) {
  const auto schedule = ParseFunctionSchedule(version.spec.annotations);
  if (!schedule.ok() || !schedule->has_value()) return;  // a deploy said what is wrong with it
  const auto known = seen_.find(version.key);
  // The first look: what an earlier life fired, or the deploy.
  int64_t last = version.created_unix_ms / 60000;
  if (known != seen_.end()) {
    last = known->second;
  } else if (const auto fired = parts_.tasks.LastFired(version.key)) {
    last = std::max(last, *fired);
  }
  // A clock that was ahead is believed no longer than this.
  if (last > now_minute + 60) last = now_minute;
  const auto due = DueMinute(**schedule, {last, now_minute});
  seen_[version.key] = std::max(last, now_minute);
  if (due) Fire(version.key, *due);
}

void ScheduleKeeper::Fire(const FunctionKey& function, int64_t minute) {
  const auto earlier = waiting_.find(function);
  if (earlier != waiting_.end()) {
    const auto task = parts_.tasks.Find(earlier->second);
    if (task.ok() && task->state == TaskState::kQueued) {
      LogWarning("schedule of " + function.name + ": the last run still waits, this one is missed");
      return;
    }
  }
  TaskOrder order;
  order.function = function;
  order.fires_minute = minute;
  order.request.headers = {{"X-Topic", "cron-function"}};
  const auto refused = [function](const Error& error) {
    LogWarning("schedule of " + function.name + ": a run is missed: " + error.message);
  };
  auto draft = parts_.tasks.NewTask(std::move(order));
  if (!draft.ok()) return refused(draft.error());
  (*draft)->Submit([this, function, refused,
                    alive = std::weak_ptr<char>(alive_)](const Result<std::string>& id) {
    if (alive.expired()) return;
    if (!id.ok()) return refused(id.error());
    waiting_[function] = *id;
  });
}

}  // namespace pulga
