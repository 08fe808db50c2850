// Autoscaler: how many instances of a version there should be. By calls under way (a stable
// average, and in panic a short one), calls per second, processor use, latency and queue length:
// whoever asks for most is heard. Latency is heard only as far as load can be its cause: never for
// more instances than there are calls at once, and not for a while after more of them did not help.
// Up at once, down slowly, to zero last of all; min and max exactly. The caller keeps ScaleState.
// Source: Knative's autoscaler (windows, panic, rates) and Kubernetes' (ratios with a tolerance).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"

namespace pulga {

struct ScaleRules {
  uint32_t min = 0;
  uint32_t max = 4;
  double calls_per_instance = 1;  // at once
  Duration panic_for = std::chrono::seconds(60);
  double panic_threshold = 2;              // times what the instances there are meant for
  std::optional<double> rate_target;       // calls per second of each instance
  std::optional<double> cpu_target;        // of what instances may use
  std::optional<Duration> latency_target;  // for LoadSnapshot::latency
  // Whether another instance made answers faster shows so long after it was asked for.
  Duration latency_settles = std::chrono::seconds(45);
  double latency_helped = 0.9;                        // times what it was, at most
  Duration latency_rests = std::chrono::minutes(10);  // without a wish, after one in vain
  double tolerance = 0.1;                             // around a ratio of 1 nothing is done
  double most_up = 1000;                              // times what is there, at once
  double most_down = 2;                               // the same, divided
  Duration down_after = std::chrono::seconds(30);     // fewer are enough for so long
  Duration zero_after = std::chrono::seconds(60);     // without a call
};

struct LoadSnapshot {
  TimePoint now;
  TimePoint last_call;        // began, ended, or is under way: now
  uint32_t instances = 0;     // ready, or about to be
  double stable_calls = 0;    // under way or waiting, over a minute (LoadWindow)
  double panic_calls = 0;     // over six seconds
  double stable_rate = 0;     // calls begun per second, over a minute (CallRate)
  double panic_rate = 0;      // over six seconds
  uint32_t waiting = 0;       // without an instance, now
  uint32_t under_way = 0;     // at instances, now
  std::optional<double> cpu;  // mean over instances, 1: all they may use
  std::optional<Duration> latency;
};

// More instances were asked for because answers took so long.
struct LatencyTrial {
  TimePoint since;
  Duration before{0};
  uint32_t instances = 0;  // there were
};
// They did not help: until then no more are asked for than there were before.
struct LatencyRest {
  TimePoint until;
  uint32_t instances = 0;
};

struct ScaleState {
  std::optional<LatencyTrial> latency_trial;
  std::optional<LatencyRest> latency_rest;
  std::optional<TimePoint> panic_since;  // or when it was last confirmed
  std::optional<TimePoint> low_since;    // fewer have been enough since
  uint32_t low_most = 0;                 // the most of those
};

struct ScaleDecision {
  enum class Cause : uint8_t {
    kEnough,
    kCalls,
    kPanic,
    kRate,
    kCpu,
    kLatency,
    kQueue,
    kLessLoad,
    kLatencyInVain,
    kIdle,
    kKeptInPanic,
    kKeptForNow,  // fewer would do, but not for long enough yet
    kMin,
    kMax,
  };
  uint32_t wanted = 0;
  uint32_t before = 0;
  Cause cause = Cause::kEnough;
  std::optional<TimePoint> look_again;  // when time alone may change the answer
  // kRate, kCpu, kLatency: what was measured, and what it should be; calls per second (of all, of
  // each), shares of 1, or nanoseconds.
  double measured = 0;
  double target = 0;
};

ScaleDecision PlanScale(const LoadSnapshot& load, const ScaleRules& rules, ScaleState* state);
// "from 2 to 5 instances: calls came at more than twice the rate".
std::string Why(const ScaleDecision& decision);

}  // namespace pulga
