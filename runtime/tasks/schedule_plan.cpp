#include "runtime/tasks/schedule_plan.h"

#include <algorithm>

#include "base/text.h"

namespace pulga {
namespace {

constexpr int64_t kMinutesPerYear = 366 * 24 * 60;

const std::string* TimesOf(const Annotations& annotations) {
  const auto topic = annotations.find("topic");
  const auto times = annotations.find("schedule");
  const bool timed = topic != annotations.end() && topic->second == "cron-function";
  return timed && times != annotations.end() ? &times->second : nullptr;
}

// The latest of `schedule` in (last, now].
std::optional<int64_t> LatestIn(const CronSchedule& schedule, const ScheduleLook& look) {
  std::optional<int64_t> latest;
  for (auto next = schedule.NextAfter(look.last); next && *next <= look.now;
       next = schedule.NextAfter(*next)) {
    latest = next;
  }
  return latest;
}

}  // namespace

Result<std::optional<FunctionSchedule>> ParseFunctionSchedule(const Annotations& annotations) {
  const std::string* times = TimesOf(annotations);
  if (times == nullptr) return std::optional<FunctionSchedule>();
  FunctionSchedule schedule;
  auto parsed = ParseCronSchedules(*times, TimeZoneOf(annotations));
  if (!parsed.ok()) return Prefix("annotations.schedule", parsed.error());
  schedule.times = std::move(*parsed);
  if (const auto missed = annotations.find("pulga.schedule.missed"); missed != annotations.end()) {
    if (missed->second != "skip" && missed->second != "once") {
      return Error{Code::kInvalidArgument, 0, "annotations.pulga.schedule.missed: skip or once"};
    }
    if (missed->second == "once") schedule.missed = FunctionSchedule::Missed::kOnce;
  }
  return std::optional<FunctionSchedule>(std::move(schedule));
}

Status CheckTimeZones(const Annotations& annotations) {
  const std::string* times = TimesOf(annotations);
  if (times == nullptr) return OkStatus();
  if (const std::string zone = TimeZoneOf(annotations); !zone.empty()) {
    const auto loaded = TimeZone::Load(zone);
    if (!loaded.ok()) {
      return Prefix("annotations." + std::string(kTimeZoneAnnotation), loaded.error());
    }
  }
  for (std::string_view text : Split(*times, ';')) {
    text = Trim(text);
    const std::string zone = TakeTimeZone(&text);
    if (zone.empty()) continue;
    const auto loaded = TimeZone::Load(zone);
    if (!loaded.ok()) return Prefix("annotations.schedule", loaded.error());
  }
  return OkStatus();
}

std::optional<int64_t> NextMinute(const FunctionSchedule& schedule, int64_t minute) {
  return NextAfter(schedule.times, minute);
}

std::optional<int64_t> DueMinute(const FunctionSchedule& schedule, const ScheduleLook& look) {
  ScheduleLook wanted = look;
  // What lies further back than a year is a clock that was not set.
  wanted.last = std::max(wanted.last, look.now - kMinutesPerYear);
  if (schedule.missed == FunctionSchedule::Missed::kSkip) {
    wanted.last = std::max(wanted.last, look.now - kOnTimeMinutes);
  }
  std::optional<int64_t> due;
  for (const CronSchedule& times : schedule.times) {
    const auto latest = LatestIn(times, wanted);
    if (latest) due = std::max(due.value_or(*latest), *latest);
  }
  return due;
}

}  // namespace pulga
