// Resizer: how much memory or processor an instance of a version may use, where its limit was given
// as a range. Raised at pressure, lowered after long slack; between changes there is time to see
// what the last one did. The caller keeps ResizeState. The same rule for bytes and for cpu millis.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"

namespace pulga {

struct ResizeRules {
  uint64_t least = 0;
  uint64_t most = 0;
  uint64_t step = 1;         // limits are multiples of it, but for `least` and `most`
  double raise_by = 1.5;     // at pressure
  double raise_hard_by = 2;  // when something was killed for it
  double room = 1.25;        // times the peak: what is left after lowering
  double slack = 0.6;        // a peak below this part of the limit is slack
  Duration raise_gap = std::chrono::seconds(10);
  Duration lower_after = std::chrono::minutes(30);  // of slack, and since the last change

  static ResizeRules Memory(uint64_t least_bytes, uint64_t most_bytes);
  static ResizeRules Cpu(uint64_t least_millis, uint64_t most_millis);
};

struct UseSnapshot {
  TimePoint now;
  uint64_t limit = 0;
  uint64_t peak = 0;     // since the last snapshot, of the one that used most
  uint64_t pressed = 0;  // how often it was close to it, or held up by it, since then
  uint64_t killed = 0;   // OOM kills since then
};

struct ResizeState {
  std::optional<TimePoint> changed;
  std::optional<TimePoint> slack_since;
  uint64_t slack_peak = 0;
};

struct ResizeDecision {
  enum class Cause : uint8_t { kFits, kPressed, kKilled, kSlack, kAtMost, kSettling, kRange };
  uint64_t limit = 0;
  uint64_t before = 0;
  Cause cause = Cause::kFits;
};

ResizeDecision PlanResize(const UseSnapshot& use, const ResizeRules& rules, ResizeState* state);
// "it was at its limit, or close to it"; amounts are the caller's to print.
std::string Why(const ResizeDecision& decision);

}  // namespace pulga
