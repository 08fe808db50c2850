// When functions with a schedule are due: annotations `topic` = cron-function and `schedule`, as
// the cron connector of OpenFaaS reads them, several with ';', by the clock of annotation
// `timezone`, or UTC (CronSchedule says what happens where that clock jumps). By the minute. A time
// that was missed (the daemon was down, the clock jumped) is passed over, or with annotation
// pulga.schedule.missed = once made up for, by one run however many they were.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/policy/cron_schedule.h"

namespace pulga {

struct FunctionSchedule {
  CronSchedules times;
  enum class Missed : uint8_t { kSkip, kOnce } missed = Missed::kSkip;
};
// Nothing: it has none. kInvalidArgument names the annotation.
using Annotations = std::map<std::string, std::string>;
Result<std::optional<FunctionSchedule>> ParseFunctionSchedule(const Annotations& annotations);
// Whether this board knows the time zones that schedules of `annotations` name; kInvalidArgument
// says which it does not. Asked of what is deployed only: what is stored runs without its schedule.
Status CheckTimeZones(const Annotations& annotations);

// So late a look may come without its minute being missed.
inline constexpr int64_t kOnTimeMinutes = 2;

struct ScheduleLook {
  int64_t last = 0;  // the minute (since 1970) up to which everything has been seen to
  int64_t now = 0;
};
// The minute that is due now, of those after `last`: the latest. Nothing where the clock was set
// back: no minute comes twice.
std::optional<int64_t> DueMinute(const FunctionSchedule& schedule, const ScheduleLook& look);
// The first minute later than `minute` that is on it. Nothing: none within five years.
std::optional<int64_t> NextMinute(const FunctionSchedule& schedule, int64_t minute);

}  // namespace pulga
