// The readiness ladder as data: what an instance costs to start from each rung, and what it holds
// there. Which rungs there are depends on the function (exec: none above parked), and on the board
// (no swap: none is reclaimed).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/clock.h"

namespace pulga {

enum class Rung : uint8_t { kCold, kParked, kReclaimed, kFrozen, kWarm };  // from low to high
inline constexpr size_t kRungs = 5;

constexpr std::string_view RungName(Rung rung) {
  constexpr std::array<std::string_view, kRungs> kNames = {"cold", "parked", "reclaimed", "frozen",
                                                           "warm"};
  return kNames[static_cast<size_t>(rung)];
}

struct RungCost {
  Duration start = Duration::zero();  // what a call waits more than on a warm one
  uint64_t bytes = 0;
  bool offered = false;
};

// Lower rungs hold no more and start no faster. Cold is always offered.
struct Ladder {
  std::array<RungCost, kRungs> rungs;

  RungCost& operator[](Rung rung) { return rungs[static_cast<size_t>(rung)]; }
  const RungCost& operator[](Rung rung) const { return rungs[static_cast<size_t>(rung)]; }

  // The rung itself where it is offered, else the next lower one that is.
  Rung AtMost(Rung rung) const {
    auto at = static_cast<size_t>(rung);
    while (at > 0 && !rungs[at].offered) --at;
    return static_cast<Rung>(at);
  }
  Rung Below(Rung rung) const {
    return rung == Rung::kCold ? rung : AtMost(static_cast<Rung>(static_cast<size_t>(rung) - 1));
  }
};

}  // namespace pulga
