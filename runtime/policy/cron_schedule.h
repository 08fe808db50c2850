// CronSchedule: when a timer calls, as cron writes it: "*/5 * * * *" (minute, hour, day of the
// month, month, day of the week; lists, ranges, steps) or "@hourly". Where both days are given
// either will do. By the clock of a time zone, or UTC. Where that clock jumps forward, a time that
// it skipped comes right after the jump; where it jumps back, a time that it says twice comes the
// first time only. A schedule of each hour, or each n-th ("*", "*/2"), goes by what the clock says:
// nothing for the hour that is skipped, and again in the one that is repeated, as cron does it.
// Pure but for the time zone's file (base/time_zone.h); a fixed 64 bytes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time_zone.h"

namespace pulga {

class CronSchedule {
 public:
  // kInvalidArgument names the field, or the zone. No names of months and days, no seconds. The
  // text may begin with a zone of its own, "CRON_TZ=Europe/Madrid 0 6 * * *" (or "TZ="); else it is
  // `zone`; "": UTC.
  static Result<CronSchedule> Parse(std::string_view text, const std::string& zone = "");
  // The first minute (since 1970) later than `minute`; none within five years: it never comes.
  std::optional<int64_t> NextAfter(int64_t minute) const;

 private:
  bool OnDay(int64_t day) const;
  std::optional<WallMinute> NextWall(WallMinute from, WallMinute before) const;
  std::optional<int64_t> NextInZone(int64_t minute) const;

  uint64_t minutes_ = 0, hours_ = 0, days_ = 0, months_ = 0, weekdays_ = 0;  // a bit for each value
  bool any_day_ = false, any_weekday_ = false;
  bool any_hour_ = false;         // by the hour: "*", "*/2"
  std::optional<TimeZone> zone_;  // none: UTC
};

// One to 16 of them, separated by ';'.
using CronSchedules = std::vector<CronSchedule>;
Result<CronSchedules> ParseCronSchedules(std::string_view text, const std::string& zone);
// The first minute later than `minute` on any of them.
std::optional<int64_t> NextAfter(const CronSchedules& schedules, int64_t minute);

// Schedules that are asked with each call: they search only when time has passed the last answer.
class ScheduleMemo {
 public:
  explicit ScheduleMemo(CronSchedules schedules) : schedules_(std::move(schedules)) {}
  std::optional<int64_t> NextAfter(int64_t minute);
  uint64_t searches() const { return searches_; }

 private:
  CronSchedules schedules_;
  std::optional<int64_t> asked_;
  std::optional<int64_t> next_;  // after asked_
  uint64_t searches_ = 0;
};

// The time zone of all schedules of a function.
inline constexpr const char* kTimeZoneAnnotation = "timezone";
// "" where `annotations` have none.
std::string TimeZoneOf(const std::map<std::string, std::string>& annotations);
// The zone that a schedule begins with, taken off it, or "".
std::string TakeTimeZone(std::string_view* schedule);

// Of a function's annotations, as the cron connector of OpenFaaS reads them: `schedule`, where
// `topic` is cron-function, and `timezone`. None where they are none that can be read.
CronSchedules SchedulesOf(const std::map<std::string, std::string>& annotations);

}  // namespace pulga
