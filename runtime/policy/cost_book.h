// CostBook: what a start from each rung of the ladder took, and what an instance held there, as
// seen lately (moving averages); and the Ladder that decisions are made with: what was seen, and
// before that assumptions. Pure; a fixed 200 bytes per function.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "runtime/policy/rung.h"

namespace pulga {

// What is held for a parked sandbox before it was seen: kernel objects.
inline constexpr uint64_t kParkedInstanceBytes = 512 * 1024;

struct ObservedCost {
  Duration start = Duration::zero();  // meaningful with starts > 0
  uint64_t bytes = 0;                 // meaningful with sights > 0
  uint32_t starts = 0;
  uint32_t sights = 0;
};

class CostBook {
 public:
  enum class Kind : uint8_t { kProgram, kServer };  // exec, http

  // A quarter of the average is the newest.
  void NoteStart(Rung from, Duration took);
  void NoteBytes(Rung on, uint64_t bytes);
  const ObservedCost& at(Rung rung) const { return seen_[static_cast<size_t>(rung)]; }

  // All costs; which rungs are offered is the caller's (cold always is). `limit`: what a running
  // one is counted with. Before anything was seen: a program starts in 10 ms and from parked in 0.4
  // ms, a server in 260 ms, thaws in 0.3 ms and reads half a millisecond per MiB back; frozen it
  // holds its limit, reclaimed a third of what it held. What was seen of a rung is a bound on what
  // is assumed of those above it.
  Ladder MakeLadder(Kind kind, uint64_t limit) const;

  // "cold=260000000*3,0*0 frozen=...": nanoseconds*starts,bytes*sights of what was seen. For a row.
  std::string Serialise() const;
  static Result<CostBook> Parse(std::string_view text);

 private:
  std::array<ObservedCost, kRungs> seen_ = {};
};

}  // namespace pulga
