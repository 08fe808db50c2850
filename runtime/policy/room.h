// Room: what must go down the ladder before an instance may come up, under one memory budget.
// Greedy-dual over single steps: each step of each idle instance has a worth, how much a call would
// wait more for it, times how often it is called, over the bytes it frees; the least worth goes
// first. A clock that rises to the worth of what went lets the long unused go before the new.
// Memory is bounded by the number of instances. Source: Fuerst and Sharma, "FaasCache", ASPLOS
// 2021.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/policy/rung.h"

namespace pulga {

// One instance that holds memory.
struct Holder {
  enum class Use : uint8_t { kIdle, kBusy } use = Use::kIdle;
  Rung rung = Rung::kWarm;
  const Ladder* ladder = nullptr;
  double frequency = 1;  // calls, in the caller's unit
  double clock = 0;      // RoomPlan::clock of when it was last used
};

struct RoomRequest {
  uint64_t bytes = 0;  // more than there is now
  uint64_t used = 0;   // by all holders, these and those not to be touched
  uint64_t budget = 0;
  double clock = 0;  // of the last plan
};

struct Demotion {
  size_t holder = 0;  // index
  Rung to = Rung::kCold;
};

struct RoomPlan {
  enum class Verdict : uint8_t {
    kAdmit,   // after the demotions, if any
    kQueue,   // it would fit, but calls under way hold the memory
    kRefuse,  // larger than the whole budget
  } verdict = Verdict::kAdmit;
  std::vector<Demotion> demotions;  // at most one per holder; none unless admitted
  double clock = 0;
  uint64_t freed = 0;
};

RoomPlan PlanRoom(std::span<const Holder> holders, const RoomRequest& request);
// Whose end is least to be missed: so many idle ones by the worth of going all the way, the least
// first and of equals the later one. What holds little is worth much for each byte it frees.
std::vector<size_t> WorthLeast(std::span<const Holder> holders, size_t most);
// "admitted after 2 demotions that free 120.0 MiB".
std::string Why(const RoomPlan& plan, const RoomRequest& request);

}  // namespace pulga
