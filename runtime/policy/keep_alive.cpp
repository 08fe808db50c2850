#include "runtime/policy/keep_alive.h"

#include <algorithm>

#include "base/units.h"

namespace pulga {
namespace {

using Source = Warmth::Source;

Duration Minutes(uint64_t n) { return static_cast<int64_t>(n) * IdleHistogram::kBin; }

Source JudgeHabit(const IdleHistogram& habit, const KeepAliveRules& rules) {
  if (rules.learning == KeepAliveRules::Learning::kOff) return Source::kFixed;
  if (habit.observations() < rules.least_observations) return Source::kTooFew;
  if (habit.beyond() > habit.inside()) return Source::kTooLong;
  return habit.Concentrated(rules.least_cv) ? Source::kHabit : Source::kScattered;
}

std::string Reason(const Warmth& warmth) {
  const std::string seen = std::to_string(warmth.observations) + " idle times of its own";
  switch (warmth.source) {
    case Source::kFixed:
      return "by setting";
    case Source::kTooFew:
      return "only " + seen + " are known";
    case Source::kScattered:
      return seen + " show no habit";
    case Source::kTooLong:
      return "most of " + seen + " are longer than " + FormatDuration(IdleHistogram::kRange);
    case Source::kHabit:
      return seen + " say so";
    case Source::kSchedule:
      return "its schedule says so";
  }
  return "";
}

}  // namespace

Warmth PlanWarmth(const IdleHistogram& habit, const KeepAliveRules& rules,
                  std::optional<Duration> next_fire) {
  Warmth out;
  out.observations = habit.observations();
  if (next_fire) {
    out.from = std::max(*next_fire - rules.ready_before, Duration::zero());
    out.until = *next_fire + rules.gone_after;
    out.source = Source::kSchedule;
    return out;
  }
  out.source = JudgeHabit(habit, rules);
  if (out.source != Source::kHabit) {
    out.until = rules.fixed;
    return out;
  }
  const uint64_t margin = rules.margin_percent;
  out.from = Minutes(habit.Percentile(rules.head_percent) * (100 - margin) / 100);
  // A bin ends a minute after it begins; rounded up to whole minutes.
  const uint64_t tail = habit.Percentile(rules.tail_percent) + 1;
  out.until = Minutes((tail * (100 + margin) + 99) / 100);
  return out;
}

std::string Why(const Warmth& warmth) {
  const std::string span = warmth.from == Duration::zero()
                               ? "warm for " + FormatDuration(warmth.until) + " after a call: "
                               : "warm from " + FormatDuration(warmth.from) + " to " +
                                     FormatDuration(warmth.until) + " after a call: ";
  return span + Reason(warmth);
}

}  // namespace pulga
