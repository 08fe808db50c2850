// KeepAlive: when an idle function should be warm, counted from the end of its last call. Learned
// from its habits where they are clear, taken from its schedule where there is one, else fixed.
// Source: the hybrid histogram of "Serverless in the Wild" (USENIX ATC 2020) without its ARIMA
// part: what is idle for longer than four hours is parked, which costs less than guessing.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "runtime/policy/idle_histogram.h"

namespace pulga {

struct KeepAliveRules {
  enum class Learning : uint8_t { kOff, kOn } learning = Learning::kOn;
  Duration fixed = std::chrono::minutes(10);  // where nothing better is known
  uint32_t least_observations = 5;
  double least_cv = 2;
  uint32_t head_percent = 5;
  uint32_t tail_percent = 99;
  uint32_t margin_percent = 10;
  // A schedule is met from this much before its time to this much after.
  Duration ready_before = std::chrono::seconds(5);
  Duration gone_after = std::chrono::seconds(30);
};

// Warm from `from` to before `until`, both after the last call's end; not before, not after.
struct Warmth {
  enum class Source : uint8_t {
    kFixed,      // by setting
    kTooFew,     // fixed: too few observations
    kScattered,  // fixed: no habit to be seen
    kTooLong,    // fixed: mostly idle for longer than the histogram's range
    kHabit,      // the histogram
    kSchedule,
  };
  Duration from = Duration::zero();
  Duration until = Duration::zero();
  Source source = Source::kFixed;
  uint32_t observations = 0;
};

// `next_fire`: from the last call's end to the next call that is known to come.
Warmth PlanWarmth(const IdleHistogram& habit, const KeepAliveRules& rules,
                  std::optional<Duration> next_fire = std::nullopt);
// "warm from 13m to 18m after a call: 40 idle times of its own say so".
std::string Why(const Warmth& warmth);

}  // namespace pulga
