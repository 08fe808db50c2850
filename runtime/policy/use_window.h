// What calls and instances of a version took lately, for the autoscaler: how long calls ran
// (LatencyWindow), how much processor its instances used (CpuAverage). Fixed sizes, no allocation.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace pulga {

// Execution times of the last half minute, within a tenth. 1.5 KiB.
class LatencyWindow {
 public:
  static constexpr Duration kWindow = std::chrono::seconds(30);
  static constexpr uint32_t kLeastCalls = 5;  // fewer say nothing

  void Add(TimePoint now, Duration took);
  // None: too few calls ended within the window.
  std::optional<Duration> Percentile(TimePoint now, uint32_t percent) const;

 private:
  static constexpr size_t kSpans = 3;
  static constexpr int kPerOctave = 4;
  static constexpr size_t kBuckets = kPerOctave * 30;  // from 100 us to a day

  struct Span {
    int64_t number = -1;  // its beginning, in spans
    std::array<uint32_t, kBuckets> calls = {};
  };
  static int64_t SpanOf(TimePoint when);

  std::array<Span, kSpans> spans_;  // by number modulo the size
};

// Cores used at once, as an average that forgets within some ten seconds.
class CpuAverage {
 public:
  // `used`: processor time since the last Add. The first one says when counting began.
  void Add(TimePoint now, Duration used);
  std::optional<double> cores() const { return cores_; }

 private:
  std::optional<TimePoint> last_;
  std::optional<double> cores_;
};

}  // namespace pulga
