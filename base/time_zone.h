// TimeZone: what the clock on the wall says at a place, by the minute, as the time zone files of
// this system have it (/usr/share/zoneinfo, or $TZDIR). Any thread. Load reads one small file, the
// first time that its name is asked for; what was read stays for the life of the process. On
// failure: kInvalidArgument, with a sentence for whoever wrote the name.
// Source: RFC 8536; the IANA time zone database; read by Abseil's time library.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"

namespace pulga {

// Minutes since 1970 on the clock of a place: what UTC would call it if it said the same.
using WallMinute = int64_t;

// Where that clock jumps, as summer time begins or ends. `to` < `from`: that time comes twice.
struct ClockShift {
  int64_t at = 0;       // the first minute since 1970 after it
  WallMinute from = 0;  // what the clock would have said then
  WallMinute to = 0;    // what it says
};

class TimeZone {
 public:
  // "Europe/Madrid", "UTC". Names that are no plain path below the directory are refused.
  static Result<TimeZone> Load(const std::string& name);

  WallMinute WallAt(int64_t minute) const;
  // The first jump later than `minute`, and the last one up to it. None: it keeps its time.
  std::optional<ClockShift> NextShift(int64_t minute) const;
  std::optional<ClockShift> LastShift(int64_t minute) const;

 private:
  struct Zone;
  explicit TimeZone(std::shared_ptr<const Zone> zone) : zone_(std::move(zone)) {}
  std::shared_ptr<const Zone> zone_;
};

}  // namespace pulga
