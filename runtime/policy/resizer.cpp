#include "runtime/policy/resizer.h"

#include <algorithm>

namespace pulga {
namespace {

using Cause = ResizeDecision::Cause;

uint64_t Times(uint64_t amount, double factor) {
  return static_cast<uint64_t>(std::min(static_cast<double>(amount) * factor, 1e18));
}

uint64_t Fitted(uint64_t amount, const ResizeRules& rules) {
  const uint64_t step = std::max<uint64_t>(rules.step, 1);
  return std::clamp((amount + step - 1) / step * step, rules.least,
                    std::max(rules.least, rules.most));
}

std::string_view CauseText(Cause cause) {
  switch (cause) {
    case Cause::kFits:
      return "it fits";
    case Cause::kPressed:
      return "it was at its limit, or close to it";
    case Cause::kKilled:
      return "something was killed at its limit";
    case Cause::kSlack:
      return "much less was used for long";
    case Cause::kAtMost:
      return "more is needed, but that is the most it may have";
    case Cause::kSettling:
      return "its last change is too recent";
    case Cause::kRange:
      return "the range it may have was changed";
  }
  return "";
}

void NoteSlack(const UseSnapshot& use, const ResizeRules& rules, ResizeState* state) {
  const bool slack = static_cast<double>(use.peak) < static_cast<double>(use.limit) * rules.slack;
  if (!slack || use.pressed > 0 || use.killed > 0) {
    state->slack_since.reset();
    return;
  }
  if (!state->slack_since) {
    state->slack_since = use.now;
    state->slack_peak = 0;
  }
  state->slack_peak = std::max(state->slack_peak, use.peak);
}

}  // namespace

ResizeRules ResizeRules::Memory(uint64_t least_bytes, uint64_t most_bytes) {
  ResizeRules rules;
  rules.least = least_bytes;
  rules.most = most_bytes;
  rules.step = 1 << 20;
  return rules;
}

ResizeRules ResizeRules::Cpu(uint64_t least_millis, uint64_t most_millis) {
  ResizeRules rules;
  rules.least = least_millis;
  rules.most = most_millis;
  rules.step = 10;
  rules.room = 1.5;
  rules.slack = 0.4;
  return rules;
}

ResizeDecision PlanResize(const UseSnapshot& use, const ResizeRules& rules, ResizeState* state) {
  ResizeDecision out{use.limit, use.limit, Cause::kFits};
  const auto change = [&](uint64_t limit, Cause cause) {
    out.limit = limit;
    out.cause = cause;
    state->changed = use.now;
    state->slack_since.reset();
    return out;
  };
  NoteSlack(use, rules, state);
  const uint64_t inside = std::clamp(use.limit, rules.least, std::max(rules.least, rules.most));
  if (inside != use.limit) return change(inside, Cause::kRange);
  if (use.pressed > 0 || use.killed > 0) {
    const Cause cause = use.killed > 0 ? Cause::kKilled : Cause::kPressed;
    const double factor = use.killed > 0 ? rules.raise_hard_by : rules.raise_by;
    const uint64_t raised = Fitted(std::max(Times(use.limit, factor), use.limit + 1), rules);
    if (raised <= use.limit) {
      out.cause = Cause::kAtMost;
      return out;
    }
    if (state->changed && use.now < *state->changed + rules.raise_gap && use.killed == 0) {
      out.cause = Cause::kSettling;
      return out;
    }
    return change(raised, cause);
  }
  if (!state->slack_since || use.now < *state->slack_since + rules.lower_after) return out;
  // At most halved at a time: a peak of half an hour is not the truth about a day.
  const uint64_t target = std::max(Times(state->slack_peak, rules.room), use.limit / 2);
  const uint64_t lowered = Fitted(target, rules);
  if (lowered >= use.limit) return out;
  return change(lowered, Cause::kSlack);
}

std::string Why(const ResizeDecision& decision) { return std::string(CauseText(decision.cause)); }

}  // namespace pulga
