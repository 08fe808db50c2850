// BoardSimulation: a board of fake sandboxes under BoardPlan, with a clock of its own. A seed gives
// the functions, their calls, how long everything takes and what fails; every step checks what must
// always hold. Pure, fast: thousands of schedules per second.
#pragma once

#include <deque>
#include <random>
#include <string>
#include <vector>

#include "runtime/policy/board_plan.h"
#include "runtime/policy/idle_histogram.h"
#include "runtime/policy/load_window.h"

namespace pulga {

struct SimulationRules {
  uint32_t functions = 4;
  uint64_t budget = 256 << 20;
  uint32_t steps = 150;
  Duration longest_call = std::chrono::seconds(1);
  // Of every call: what it may wait while instances of others come and go, at most.
  Duration longest_wait = std::chrono::seconds(30);
};

struct SimulationResult {
  std::string broken;  // the first thing that did not hold, "" if none
  uint64_t accepted = 0, ended = 0, refused = 0;
  uint64_t actions = 0;
  Duration longest_wait = Duration::zero();
};

SimulationResult SimulateBoard(uint32_t seed, const SimulationRules& rules);

}  // namespace pulga
