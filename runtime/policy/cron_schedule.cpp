#include "runtime/policy/cron_schedule.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kMostSchedules = 16;
constexpr int64_t kMinutesPerDay = 24 * 60;
constexpr int64_t kLongest = 5 * 366 * kMinutesPerDay;

struct Field {
  std::string_view name;
  uint64_t first, last;
};
constexpr std::array<Field, 5> kFields = {{{"minute", 0, 59},
                                           {"hour", 0, 23},
                                           {"day of the month", 1, 31},
                                           {"month", 1, 12},
                                           {"day of the week", 0, 7}}};
constexpr std::array<std::array<std::string_view, 2>, 6> kShort = {{{"@yearly", "0 0 1 1 *"},
                                                                    {"@annually", "0 0 1 1 *"},
                                                                    {"@monthly", "0 0 1 * *"},
                                                                    {"@weekly", "0 0 * * 0"},
                                                                    {"@daily", "0 0 * * *"},
                                                                    {"@hourly", "0 * * * *"}}};

// Also before 1970: a clock may say anything.
int64_t FloorDay(int64_t minute) {
  return minute / kMinutesPerDay - (minute % kMinutesPerDay < 0 ? 1 : 0);
}

bool Has(uint64_t bits, uint64_t value) { return (bits >> value & 1) != 0; }

// "*", "*/5", "3", "1-5", "10-40/10"; 0: it is none of these.
uint64_t ReadRange(std::string_view text, const Field& field) {
  const std::vector<std::string_view> parts = Split(text, '/');
  const std::vector<std::string_view> ends = Split(parts[0], '-');
  if (parts.size() > 2 || ends.size() > 2) return 0;
  uint64_t first = field.first, last = field.last, step = 1;
  if (parts.size() == 2) step = ParseUint(parts[1], field.last).value_or(0);
  if (parts[0] != "*") {
    const auto from = ParseUint(ends.front(), field.last);
    const auto to = ParseUint(ends.back(), field.last);
    if (!from || !to || *from < field.first) return 0;
    first = *from;
    if (ends.size() == 2 || parts.size() == 1) last = *to;
  }
  if (step == 0 || first > last) return 0;
  uint64_t bits = 0;
  for (uint64_t value = first; value <= last; value += step) bits |= uint64_t{1} << value;
  return bits;
}

uint64_t ReadField(std::string_view text, const Field& field) {
  uint64_t bits = 0;
  for (const std::string_view range : Split(text, ',')) {
    const uint64_t more = ReadRange(range, field);
    if (more == 0) return 0;
    bits |= more;
  }
  return bits;
}

}  // namespace

Result<CronSchedule> CronSchedule::Parse(std::string_view text, const std::string& zone) {
  const std::string own_zone = TakeTimeZone(&text);
  for (const auto& [name, meaning] : kShort) {
    if (text == name) text = meaning;
  }
  std::vector<std::string_view> fields;
  for (const std::string_view field : Split(text, ' ')) {
    if (!field.empty()) fields.push_back(field);
  }
  if (fields.size() != kFields.size()) {
    return Error{Code::kInvalidArgument, 0, "a schedule has five fields, like \"*/5 * * * *\""};
  }
  std::array<uint64_t, kFields.size()> bits = {};
  for (size_t i = 0; i < kFields.size(); ++i) {
    bits[i] = ReadField(fields[i], kFields[i]);
    if (bits[i] != 0) continue;
    return Error{Code::kInvalidArgument, 0,
                 std::string(kFields[i].name) + ": \"" + Printable(fields[i], 40) + "\""};
  }
  CronSchedule out;
  out.minutes_ = bits[0];
  out.hours_ = bits[1];
  out.days_ = bits[2];
  out.months_ = bits[3];
  out.weekdays_ = bits[4] | (bits[4] >> 7 & 1);  // Sunday is 0, and 7
  out.any_hour_ = fields[1].starts_with('*');
  out.any_day_ = fields[2].starts_with('*');
  out.any_weekday_ = fields[4].starts_with('*');
  if (const std::string& name = own_zone.empty() ? zone : own_zone; !name.empty()) {
    PULGA_ASSIGN_OR_RETURN(out.zone_, TimeZone::Load(name));
  }
  return out;
}

bool CronSchedule::OnDay(int64_t day) const {
  const std::chrono::sys_days date{std::chrono::days(day)};
  const std::chrono::year_month_day calendar(date);
  if (!Has(months_, static_cast<unsigned>(calendar.month()))) return false;
  const bool by_date = Has(days_, static_cast<unsigned>(calendar.day()));
  const bool by_weekday = Has(weekdays_, std::chrono::weekday(date).c_encoding());
  return any_day_ || any_weekday_ ? by_date && by_weekday : by_date || by_weekday;
}

// The first of [from, before).
std::optional<WallMinute> CronSchedule::NextWall(WallMinute from, WallMinute before) const {
  WallMinute next = from;
  while (next < before) {
    const int64_t day = FloorDay(next);
    const int64_t of_day = next - day * kMinutesPerDay;
    if (!OnDay(day)) {
      next = (day + 1) * kMinutesPerDay;
    } else if (!Has(hours_, static_cast<uint64_t>(of_day / 60))) {
      next += 60 - of_day % 60;
    } else if (!Has(minutes_, static_cast<uint64_t>(of_day % 60))) {
      ++next;
    } else {
      return next;
    }
  }
  return std::nullopt;
}

std::optional<int64_t> CronSchedule::NextAfter(int64_t minute) const {
  if (zone_) return NextInZone(minute);
  return NextWall(minute + 1, minute + 1 + kLongest);
}

// From one jump of the clock to the next: between them it goes as ours does.
std::optional<int64_t> CronSchedule::NextInZone(int64_t minute) const {
  const int64_t end = minute + kLongest;
  int64_t since = minute;
  WallMinute from = zone_->WallAt(minute) + 1;
  if (const auto last = zone_->LastShift(minute); last && !any_hour_) {
    from = std::max(from, last->from);  // what came before it comes no second time
  }
  while (since < end) {
    const int64_t ahead = zone_->WallAt(since) - since;
    const auto shift = zone_->NextShift(since);
    const int64_t until = shift ? std::min(shift->at, end) : end;
    if (const auto found = NextWall(from, until + ahead)) return *found - ahead;
    if (!shift || shift->at >= end) break;
    const WallMinute skipped_from = std::max(from, shift->from);
    if (!any_hour_ && NextWall(skipped_from, shift->to)) return shift->at;
    from = any_hour_ ? shift->to : std::max(skipped_from, shift->to);
    since = shift->at;
  }
  return std::nullopt;
}

Result<CronSchedules> ParseCronSchedules(std::string_view text, const std::string& zone) {
  CronSchedules schedules;
  for (const std::string_view one : Split(text, ';')) {
    if (Trim(one).empty()) continue;
    PULGA_ASSIGN_OR_RETURN(CronSchedule schedule, CronSchedule::Parse(Trim(one), zone));
    schedules.push_back(std::move(schedule));
  }
  if (!schedules.empty() && schedules.size() <= kMostSchedules) return schedules;
  return Error{Code::kInvalidArgument, 0, "one to 16 schedules, separated by ';'"};
}

std::optional<int64_t> NextAfter(const CronSchedules& schedules, int64_t minute) {
  std::optional<int64_t> first;
  for (const CronSchedule& schedule : schedules) {
    const auto next = schedule.NextAfter(minute);
    if (next) first = std::min(first.value_or(*next), *next);
  }
  return first;
}

// "Never" is what can be said of five years from now; it is looked at again each day.
std::optional<int64_t> ScheduleMemo::NextAfter(int64_t minute) {
  const bool known =
      asked_ && minute >= *asked_ && minute < next_.value_or(*asked_ + kMinutesPerDay);
  if (known) return next_;
  ++searches_;
  asked_ = minute;
  next_ = pulga::NextAfter(schedules_, minute);
  return next_;
}

std::string TimeZoneOf(const std::map<std::string, std::string>& annotations) {
  const auto zone = annotations.find(kTimeZoneAnnotation);
  return zone == annotations.end() ? "" : std::string(Trim(zone->second));
}

std::string TakeTimeZone(std::string_view* schedule) {
  for (const std::string_view name : {"CRON_TZ=", "TZ="}) {
    if (!schedule->starts_with(name)) continue;
    const size_t end = std::min(schedule->find(' '), schedule->size());
    std::string zone(schedule->substr(name.size(), end - name.size()));
    *schedule = Trim(schedule->substr(end));
    return zone;
  }
  return "";
}

CronSchedules SchedulesOf(const std::map<std::string, std::string>& annotations) {
  const auto topic = annotations.find("topic");
  const auto schedule = annotations.find("schedule");
  if (topic == annotations.end() || schedule == annotations.end()) return {};
  if (topic->second != "cron-function") return {};
  auto parsed = ParseCronSchedules(schedule->second, TimeZoneOf(annotations));
  return parsed.ok() ? std::move(*parsed) : CronSchedules();
}

}  // namespace pulga
