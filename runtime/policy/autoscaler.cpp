#include "runtime/policy/autoscaler.h"

#include <algorithm>
#include <cmath>

#include "base/units.h"

namespace pulga {
namespace {

using Cause = ScaleDecision::Cause;

// An average of whole numbers is one only nearly.
constexpr double kNearly = 1 - 1e-5;
// How often a rate is looked at while nobody calls.
constexpr Duration kRateFades = std::chrono::seconds(2);

uint32_t Ceil(double value) {
  if (!(value > 0)) return 0;
  return static_cast<uint32_t>(std::min(std::ceil(value * kNearly), 1e9));
}

std::string_view CauseText(Cause cause) {
  switch (cause) {
    case Cause::kEnough:
      return "they are what the load needs";
    case Cause::kCalls:
      return "so many calls are under way";
    case Cause::kPanic:
      return "many more calls came within seconds";
    case Cause::kRate:
      return "so many calls come per second";
    case Cause::kCpu:
      return "they use more of their processors than they should";
    case Cause::kLatency:
      return "answers take longer than they should";
    case Cause::kQueue:
      return "calls are waiting";
    case Cause::kLessLoad:
      return "fewer have been enough for a while";
    case Cause::kLatencyInVain:
      return "answers take longer than they should, but more instances did not change that";
    case Cause::kIdle:
      return "no call came for a while";
    case Cause::kKeptInPanic:
      return "none goes so soon after a burst";
    case Cause::kKeptForNow:
      return "fewer would do, but not for long enough yet";
    case Cause::kMin:
      return "scale.min";
    case Cause::kMax:
      return "scale.max allows no more";
  }
  return "";
}

class Scaler {
 public:
  Scaler(const LoadSnapshot& load, const ScaleRules& rules, ScaleState* state)
      : load_(load), rules_(rules), state_(*state) {
    out_.before = out_.wanted = load.instances;
  }

  ScaleDecision Plan() {
    AskEverybody();
    const uint32_t needed = std::min(asked_, MostAtOnce());
    if (needed > load_.instances) {
      state_.low_since.reset();
      out_.wanted = needed;
      out_.cause = cause_;
    } else if (needed < load_.instances) {
      GoDown(needed);
    } else {
      state_.low_since.reset();
    }
    KeepMax();
    return out_;
  }

 private:
  void Ask(uint32_t instances, Cause cause) {
    if (instances <= asked_) return;
    asked_ = instances;
    cause_ = cause;
  }
  void LookAgain(TimePoint when) {
    if (!out_.look_again || when < *out_.look_again) out_.look_again = when;
  }

  void AskEverybody() {
    const double each = std::max(rules_.calls_per_instance, 0.01);
    Ask(rules_.min, Cause::kMin);
    Ask(Ceil(load_.stable_calls / each), Cause::kCalls);
    const uint32_t urgent = Ceil(load_.panic_calls / each);
    if (load_.instances > 0 &&
        load_.panic_calls / each >= rules_.panic_threshold * load_.instances) {
      state_.panic_since = load_.now;
    }
    if (InPanic()) Ask(urgent, Cause::kPanic);
    if (load_.waiting > 0) Ask(Ceil((load_.waiting + load_.under_way) / each), Cause::kQueue);
    // Who has a call keeps an instance, whatever averages say.
    Ask(Ceil(load_.under_way / each), Cause::kCalls);
    AskByRate();
    // Both are of the past when nobody calls, and would keep the last instance for ever.
    if (load_.stable_calls > 0) AskByRatios();
  }
  // At once by the short average, down by the long one; without a panic: slow answers, which panic
  // is for, make no rate higher.
  void AskByRate() {
    if (!rules_.rate_target) return;
    const double rate = std::max(load_.stable_rate, load_.panic_rate);
    const double each = std::max(*rules_.rate_target, 0.01);
    const uint32_t wanted =
        load_.instances > 0 ? ByRatio(rate / (each * load_.instances)) : Ceil(rate / each);
    AskFor(wanted, Cause::kRate, rate, each);
    // It fades though nothing happens.
    if (wanted > rules_.min) LookAgain(load_.now + kRateFades);
  }
  void AskByRatios() {
    if (load_.cpu && rules_.cpu_target) {
      AskFor(ByRatio(*load_.cpu / *rules_.cpu_target), Cause::kCpu, *load_.cpu, *rules_.cpu_target);
    }
    if (load_.latency && rules_.latency_target)
      AskByLatency(*load_.latency, *rules_.latency_target);
  }
  void AskFor(uint32_t instances, Cause cause, double measured, double target) {
    if (instances <= asked_) return;
    Ask(instances, cause);
    out_.measured = measured;
    out_.target = target;
  }
  // What something else makes slow does not get faster by more instances: at most twice as many at
  // once, never more than calls that could be faster alone, and the next ones only if these helped.
  void AskByLatency(Duration latency, Duration target) {
    JudgeTrial(latency, target);
    const double ratio = static_cast<double>(latency.count()) / static_cast<double>(target.count());
    const double calls = std::max({load_.stable_calls, load_.panic_calls,
                                   static_cast<double>(load_.under_way + load_.waiting)});
    uint32_t useful = std::min({ByRatio(std::min(ratio, 2.0)), Ceil(calls), rules_.max});
    if (Resting()) useful = std::min(useful, state_.latency_rest->instances);
    if (useful > load_.instances && state_.latency_trial) {
      LookAgain(state_.latency_trial->since + rules_.latency_settles);
      useful = load_.instances;
    }
    const bool heard = useful > asked_;
    AskFor(useful, Cause::kLatency, static_cast<double>(latency.count()),
           static_cast<double>(target.count()));
    if (heard && useful > load_.instances && load_.instances > 0) {
      state_.latency_trial = {load_.now, latency, load_.instances};
    }
  }
  void JudgeTrial(Duration latency, Duration target) {
    if (!state_.latency_trial) return;
    const LatencyTrial trial = *state_.latency_trial;
    if (load_.now < trial.since + rules_.latency_settles) return;
    state_.latency_trial.reset();
    if (load_.instances <= trial.instances) return;  // none came: nothing was tried
    const double helped = rules_.latency_helped * static_cast<double>(trial.before.count());
    if (latency <= target || static_cast<double>(latency.count()) <= helped) return;
    state_.latency_rest = {load_.now + rules_.latency_rests, trial.instances};
  }
  bool Resting() {
    if (state_.latency_rest && load_.now >= state_.latency_rest->until) state_.latency_rest.reset();
    return state_.latency_rest.has_value();
  }
  uint32_t ByRatio(double ratio) const {
    if (std::abs(ratio - 1) <= rules_.tolerance) return load_.instances;
    return Ceil(load_.instances * ratio);
  }
  bool InPanic() {
    if (!state_.panic_since) return false;
    if (load_.now < *state_.panic_since + rules_.panic_for) {
      LookAgain(*state_.panic_since + rules_.panic_for);
      return true;
    }
    state_.panic_since.reset();
    return false;
  }
  uint32_t MostAtOnce() const {
    return Ceil(std::max<double>(load_.instances, 1) * rules_.most_up);
  }

  void GoDown(uint32_t needed) {
    if (state_.panic_since) {
      state_.low_since.reset();
      out_.cause = Cause::kKeptInPanic;
      return;
    }
    if (!state_.low_since) {
      state_.low_since = load_.now;
      state_.low_most = needed;
    }
    state_.low_most = std::max(state_.low_most, needed);
    const TimePoint due = *state_.low_since + rules_.down_after;
    if (load_.now < due) {
      LookAgain(due);
      out_.cause = Cause::kKeptForNow;
      return;
    }
    const auto least = static_cast<uint32_t>(load_.instances / std::max(rules_.most_down, 1.0));
    out_.wanted = std::max(state_.low_most, least);
    out_.cause =
        state_.latency_rest && load_.stable_calls > 0 ? Cause::kLatencyInVain : Cause::kLessLoad;
    if (out_.wanted == 0 && load_.now < load_.last_call + rules_.zero_after) {
      out_.wanted = 1;
      out_.cause = Cause::kKeptForNow;
      LookAgain(load_.last_call + rules_.zero_after);
      return;
    }
    if (out_.wanted == 0) out_.cause = Cause::kIdle;
    state_.low_since = load_.now;  // the next step needs a time of its own
    state_.low_most = needed;
    if (out_.wanted > 0) LookAgain(load_.now + rules_.down_after);
  }

  // A max below min is the one that counts: it protects the board.
  void KeepMax() {
    if (out_.wanted < rules_.max || (out_.wanted == rules_.max && asked_ <= rules_.max)) return;
    out_.wanted = rules_.max;
    out_.cause = Cause::kMax;
  }

  const LoadSnapshot& load_;
  const ScaleRules& rules_;
  ScaleState& state_;
  uint32_t asked_ = 0;
  Cause cause_ = Cause::kEnough;
  ScaleDecision out_;
};

std::string Percent(double share) { return std::to_string(std::lround(share * 100)) + " %"; }

std::string Detail(const ScaleDecision& decision) {
  if (decision.cause == Cause::kCpu) {
    return " (" + Percent(decision.measured) + ", not " + Percent(decision.target) + ")";
  }
  if (decision.cause == Cause::kRate) {
    return " (" + std::to_string(std::lround(decision.measured)) + ", " +
           std::to_string(std::lround(decision.target)) + " for each)";
  }
  if (decision.cause != Cause::kLatency) return "";
  const auto shown = [](double ns) {
    return FormatDuration(std::chrono::milliseconds(std::llround(ns / 1e6)));
  };
  return " (" + shown(decision.measured) + ", not " + shown(decision.target) + ")";
}

std::string Instances(uint32_t n) {
  return std::to_string(n) + (n == 1 ? " instance" : " instances");
}

}  // namespace

ScaleDecision PlanScale(const LoadSnapshot& load, const ScaleRules& rules, ScaleState* state) {
  return Scaler(load, rules, state).Plan();
}

std::string Why(const ScaleDecision& decision) {
  const std::string change =
      decision.wanted == decision.before
          ? "stays at " + Instances(decision.wanted)
          : "from " + std::to_string(decision.before) + " to " + Instances(decision.wanted);
  return change + ": " + std::string(CauseText(decision.cause)) + Detail(decision);
}

}  // namespace pulga
