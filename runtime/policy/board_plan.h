// BoardPlan: all functions of a board at once. From what there is to what should happen next: which
// instances rise or are made for calls that wait, which fall because nobody needs them or somebody
// else does. Brings autoscaler, descent and room together; whoever applies it asks again after each
// change. Calls that wait are served in the order of their age, across functions: one that memory
// was denied for `patience` is next, and instances in use take no new calls until it has its room.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/policy/autoscaler.h"
#include "runtime/policy/descent.h"
#include "runtime/policy/rung.h"

namespace pulga {

struct InstanceView {
  enum class Motion : uint8_t { kNone, kRising, kFalling } motion = Motion::kNone;
  enum class Door : uint8_t { kOpen, kClosed } door = Door::kOpen;  // closed: no new calls
  Rung rung = Rung::kWarm;                                          // in motion: where to
  uint64_t bytes = 0;  // held now: of both rungs the larger while in motion
  uint32_t calls = 0;
  TimePoint idle_since;  // with no call: the end of its last one, or its own start
};

// One version of a function. A retired one has scale.max 0 and no waiting calls.
struct FunctionView {
  const Ladder* ladder = nullptr;
  Warmth warmth;
  ScaleRules scale;
  LoadSnapshot load;                        // all but now and instances
  std::optional<TimePoint> oldest_waiting;  // with load.waiting above zero
  double frequency = 1;
  double clock = 0;
  ScaleState* state = nullptr;
  std::span<const InstanceView> instances;
};

struct BoardView {
  TimePoint now;
  uint64_t budget = 0;
  double clock = 0;  // of the last plan
  Duration patience = std::chrono::seconds(1);
  DescentRules descent;
  std::span<const FunctionView> functions;
};

struct BoardAction {
  enum class Kind : uint8_t {
    kStart,  // a new instance, up to warm
    kRaise,
    kLower,   // to cold: it ends
    kClose,   // no new calls; it is lowered when its calls have ended
    kRefuse,  // the function's waiting calls: they never fit
  };
  enum class Cause : uint8_t {
    kCallsWait,
    kCallExpected,
    kMinimum,  // scale.min
    kIdle,     // by descent
    kSurplus,  // by the autoscaler
    kRoom,     // for another function
    kRetired,
    kStarving,  // another function's call has waited too long
    kTooLarge,
    kPromised,  // by scale.min of others
  };
  Kind kind = Kind::kLower;
  Cause cause = Cause::kIdle;
  size_t function = 0;
  size_t instance = 0;  // index; not for kStart and kRefuse
  Rung to = Rung::kCold;
};

struct BoardPlan {
  std::vector<BoardAction> actions;  // at most one per instance, and the starts
  double clock = 0;
  std::optional<TimePoint> look_again;
};

BoardPlan PlanBoard(const BoardView& board);
// "lowers an instance to reclaimed: another function needs the memory".
std::string Why(const BoardAction& action);

}  // namespace pulga
