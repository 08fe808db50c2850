// Contention: what functions get of a board that is too small for all of them. The real dispatcher
// and pools over sandboxes that are only counted, by a clock that leaps; nothing fails. Rivals of
// one kind always have so many calls that wait, others call once in a while. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace pulga::testing {

struct Rival {
  uint32_t weight = 100;
  uint64_t memory_bytes = 64 << 20;
  uint32_t backlog = 0;  // calls that it has at any time; 0: one call each half second
};
struct ContentionRules {
  uint32_t seed = 1;
  uint64_t budget = 256 << 20;
  uint32_t max_instances = 100;
  Duration longest_call = std::chrono::milliseconds(100);
  Duration time = std::chrono::seconds(5);
};
struct ContentionResult {
  struct OfRival {
    uint64_t served = 0;
    Duration longest_wait = Duration::zero();  // until a call ended
  };
  std::vector<OfRival> rivals;  // as they were given
  uint64_t served = 0;
  uint64_t looks = 0;  // at the clock: what was decided, and thought about
};

ContentionResult SimulateContention(const std::vector<Rival>& rivals, const ContentionRules& rules);

}  // namespace pulga::testing
