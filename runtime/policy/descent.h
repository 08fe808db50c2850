// Descent: on which rung an idle instance should be, by how long it has been idle. One rule for all
// policies: a fixed TTL is a ladder without rungs between warm and cold.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "runtime/policy/keep_alive.h"
#include "runtime/policy/rung.h"

namespace pulga {

struct DescentRules {
  Duration freeze_after = std::chrono::seconds(1);  // of idleness
  // How long an instance is worth swap, and a sandbox its kernel objects, outside of its warmth.
  Duration reclaimed_for = std::chrono::hours(2);
  Duration parked_for = std::chrono::hours(24 * 7);
};

struct Stage {
  enum class Cause : uint8_t { kJustUsed, kCallExpected, kNoCallYet, kCallOverdue, kUnused };
  Rung rung = Rung::kCold;
  std::optional<Duration> until;  // of idleness; none: nothing changes by itself
  Cause cause = Cause::kUnused;
};

Stage StageAt(Duration idle, const Warmth& warmth, const DescentRules& rules, const Ladder& ladder);
// "frozen until 18m of idleness: a call is expected".
std::string Why(const Stage& stage);

}  // namespace pulga
