// RuntimeSimulation: the real dispatcher, pools, calls and event loop, in both modes, over
// sandboxes that are only counted, by a clock that stands still while anything can be done and else
// leaps to the next timer. A seed gives functions, calls, deploys, failures and how long everything
// takes; after every turn of the loop it is checked what must always hold, and in the end that
// nothing is left, descriptors too. One thread, no sleep, no system call on the way: with some
// fifty calls each, about two thousand schedules per second of one x86 core, optimised (the test
// prints how many). The same seed is the same schedule.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace pulga::testing {

struct RuntimeSimulationRules {
  uint32_t functions = 4;
  uint64_t budget = 192 << 20;
  uint32_t max_instances = 12;
  uint32_t steps = 32;      // on average, and at most twice as many
  uint32_t min_one_in = 4;  // so many functions have a scale.min; 0: none
  uint32_t servers = 50;    // of a hundred functions; half of the boards have swap
  enum class Descriptors : uint8_t { kSimulated, kKernels } descriptors = Descriptors::kSimulated;
  Duration longest_call = std::chrono::milliseconds(300);
  // Until a call's program runs, or it is refused: beside calls of all functions, failing starts
  // and a launcher that dies.
  Duration longest_wait = std::chrono::seconds(60);
};

struct RuntimeSimulationResult {
  std::string broken;  // the first thing that did not hold, "" if none
  uint64_t calls = 0, served = 0, refused = 0, failed = 0, left = 0;
  uint64_t programs = 0, builds = 0, redeploys = 0, freezes = 0, thaws = 0, reclaims = 0;
  Duration longest_wait = Duration::zero();
};

RuntimeSimulationResult SimulateRuntime(uint32_t seed, const RuntimeSimulationRules& rules);

}  // namespace pulga::testing
