#include "runtime/policy/descent.h"

#include <algorithm>

#include "base/units.h"

namespace pulga {
namespace {

using Cause = Stage::Cause;

std::string_view CauseText(Cause cause) {
  switch (cause) {
    case Cause::kJustUsed:
      return "it was just used";
    case Cause::kCallExpected:
      return "a call is expected";
    case Cause::kNoCallYet:
      return "no call is expected before";
    case Cause::kCallOverdue:
      return "the call that was expected did not come";
    case Cause::kUnused:
      return "it is out of use";
  }
  return "";
}

}  // namespace

Stage StageAt(Duration idle, const Warmth& warmth, const DescentRules& rules,
              const Ladder& ladder) {
  const bool freezes = ladder[Rung::kFrozen].offered;
  const bool early = idle < warmth.from;
  if (!early && idle < warmth.until) {
    if (freezes && idle >= rules.freeze_after) {
      return {Rung::kFrozen, warmth.until, Cause::kCallExpected};
    }
    const Duration end = freezes ? std::min(rules.freeze_after, warmth.until) : warmth.until;
    return {Rung::kWarm, end, Cause::kCallExpected};
  }
  const auto until = [&](Duration end) { return early ? std::min(end, warmth.from) : end; };
  const Cause cause = early ? Cause::kNoCallYet : Cause::kCallOverdue;
  if (freezes && idle < rules.freeze_after) {
    return {Rung::kWarm, until(rules.freeze_after), Cause::kJustUsed};
  }
  if (ladder[Rung::kReclaimed].offered && idle < rules.reclaimed_for) {
    return {Rung::kReclaimed, until(rules.reclaimed_for), cause};
  }
  if (ladder[Rung::kParked].offered && idle < rules.parked_for) {
    return {Rung::kParked, until(rules.parked_for), cause};
  }
  if (early) return {Rung::kCold, warmth.from, Cause::kNoCallYet};
  return {Rung::kCold, std::nullopt, Cause::kUnused};
}

std::string Why(const Stage& stage) {
  std::string text(RungName(stage.rung));
  if (stage.until) text += " until " + FormatDuration(*stage.until) + " of idleness";
  return text + ": " + std::string(CauseText(stage.cause));
}

}  // namespace pulga
