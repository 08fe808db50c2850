// Replay: what a policy would have cost on a trace, decided by the very code that decides live
// (keep_alive, descent, room). One instance per function; a function's calls within one tick come
// together, and the functions called in a tick take turns in a random order.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/policy/descent.h"
#include "runtime/policy/keep_alive.h"
#include "runtime/policy/rung.h"
#include "runtime/policy/trace.h"

namespace pulga {

// What the rungs cost where nothing was measured. `bench/figures.md` has the measurements.
struct RungModel {
  Duration build = std::chrono::milliseconds(10);  // a version's spawner and a sandbox
  Duration exec = std::chrono::microseconds(400);  // of a parked sandbox's program
  Duration thaw = std::chrono::microseconds(300);
  Duration page_in_mib = std::chrono::microseconds(500);  // from zram, on a small board
  uint32_t reclaimed_percent = 35;                        // what is left in memory, with zram
  uint64_t parked_bytes = 512 << 10;
};

struct ReplayPolicy {
  std::string name;
  KeepAliveRules keep_alive;
  DescentRules descent;
  std::array<bool, kRungs> offers = {true, false, false, false, true};  // by Rung
  uint64_t budget = UINT64_MAX;
  enum class Frequency : uint8_t { kAllCalls, kRecentCalls } frequency = Frequency::kRecentCalls;
  enum class Schedules : uint8_t { kUnknown, kKnown } schedules = Schedules::kUnknown;
};

struct ReplayCost {
  std::array<uint64_t, kRungs> starts = {};  // a tick's first call, by the rung it found
  uint64_t prewarmed = 0;                    // instances brought up before a call
  uint64_t calls = 0;
  Duration waited = Duration::zero();  // for starts, all together
  double idle_bytes = 0;               // held by instances without a call, on average
  uint64_t peak_bytes = 0;

  uint64_t at(Rung rung) const { return starts[static_cast<size_t>(rung)]; }
  // How often a call waited for the program to begin, in a ready sandbox or not.
  uint64_t program_starts() const { return at(Rung::kCold) + at(Rung::kParked); }
};

ReplayCost Replay(const Trace& trace, const ReplayPolicy& policy, const RungModel& model,
                  uint32_t seed = 1);

// Without a budget (0): fixed times, the hybrid histogram, ours. Within one: greedy-dual and ours.
std::vector<ReplayPolicy> StandardPolicies(uint64_t budget, const std::vector<Duration>& ttls);

}  // namespace pulga
