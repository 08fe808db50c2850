// CronSchedule: when a timer calls, as cron writes it: "*/5 * * * *" (minute, hour, day of the
// month, month, day of the week; lists, ranges, steps) or "@hourly". In UTC. Where both days are
// given either will do. Pure; a fixed 32 bytes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

class CronSchedule {
 public:
  // kInvalidArgument names the field. No names of months and days, no seconds, no time zones.
  static Result<CronSchedule> Parse(std::string_view text);
  // The first minute (since 1970) later than `minute`; none within five years: it never comes.
  std::optional<int64_t> NextAfter(int64_t minute) const;

 private:
  bool OnDay(int64_t day) const;

  uint64_t minutes_ = 0, hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;  // a bit for each value
  bool any_day_ = false, any_weekday_ = false;
};

// A schedule that is asked with each call: it searches only when time has passed its last answer.
class ScheduleMemo {
 public:
  explicit ScheduleMemo(const CronSchedule& schedule) : schedule_(schedule) {}
  std::optional<int64_t> NextAfter(int64_t minute);
  uint64_t searches() const { return searches_; }

 private:
  CronSchedule schedule_;
  std::optional<int64_t> asked_;
  std::optional<int64_t> next_;  // after asked_
  uint64_t searches_ = 0;
};

// Of a function's annotations, as the cron connector of OpenFaaS reads them: `schedule`, where
// `topic` is cron-function. None where it is none that Parse takes.
std::optional<CronSchedule> ScheduleOf(const std::map<std::string, std::string>& annotations);

}  // namespace pulga
