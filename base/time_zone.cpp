#include "base/time_zone.h"

#include <absl/time/time.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kLongestName = 64;

std::string ZoneDirectory() {
  const char* given = std::getenv("TZDIR");
  return given != nullptr && *given != '\0' ? given : "/usr/share/zoneinfo";
}

// The library remembers each name that it is asked for, found or not, and would follow a path to
// any place: it hears only of files that are there. "right/" counts leap seconds, which our clock
// does not.
bool IsZoneName(const std::string& name) {
  const auto fits = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '+' || c == '/';
  };
  return !name.empty() && name.size() <= kLongestName && name.front() != '/' &&
         std::all_of(name.begin(), name.end(), fits) && !name.starts_with("right/") &&
         !name.starts_with("posix/") && name.find("//") == std::string::npos;
}

bool IsFile(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

Error NoZone(const std::string& name) {
  struct stat info = {};
  const std::string directory = ZoneDirectory();
  const std::string shown = "no time zone \"" + Printable(name, 40) + "\"";
  if (stat(directory.c_str(), &info) != 0) {
    return Error{Code::kInvalidArgument, 0,
                 shown + ": this board has no time zones at all (" + directory +
                     "; package tzdata), only UTC"};
  }
  return Error{Code::kInvalidArgument, 0,
               shown + ": names are those below " + directory + ", like Europe/Madrid"};
}

absl::Time TimeOf(int64_t minute) { return absl::FromUnixSeconds(minute * 60); }

// Offsets of a part of a minute went out of use in 1972.
int64_t FloorMinute(int64_t seconds) {
  return seconds >= 0 ? seconds / 60 : -((-seconds + 59) / 60);
}

WallMinute WallOf(absl::CivilSecond wall) { return FloorMinute(wall - absl::CivilSecond(1970)); }

}  // namespace

struct TimeZone::Zone {
  absl::TimeZone rules;

  ClockShift Shift(const absl::TimeZone::CivilTransition& found) const {
    // Of the two moments that a repeated time has, the later one lies after the jump.
    const int64_t at = absl::ToUnixSeconds(rules.At(found.to).post);
    return {FloorMinute(at), WallOf(found.from), WallOf(found.to)};
  }
};

Result<TimeZone> TimeZone::Load(const std::string& name) {
  auto zone = std::make_shared<Zone>();
  if (name == "UTC") {
    zone->rules = absl::UTCTimeZone();
    return TimeZone(std::move(zone));
  }
  if (!IsZoneName(name) || !IsFile(ZoneDirectory() + "/" + name)) return NoZone(name);
  if (!absl::LoadTimeZone(name, &zone->rules)) return NoZone(name);
  return TimeZone(std::move(zone));
}

WallMinute TimeZone::WallAt(int64_t minute) const {
  return WallOf(zone_->rules.At(TimeOf(minute)).cs);
}

std::optional<ClockShift> TimeZone::NextShift(int64_t minute) const {
  absl::TimeZone::CivilTransition found;
  if (!zone_->rules.NextTransition(TimeOf(minute), &found)) return std::nullopt;
  return zone_->Shift(found);
}

std::optional<ClockShift> TimeZone::LastShift(int64_t minute) const {
  absl::TimeZone::CivilTransition found;
  const absl::Time after = TimeOf(minute) + absl::Seconds(1);
  if (!zone_->rules.PrevTransition(after, &found)) return std::nullopt;
  return zone_->Shift(found);
}

}  // namespace pulga
