#include "runtime/policy/use_window.h"

#include <algorithm>
#include <cmath>

namespace pulga {
namespace {

constexpr Duration kShortest = std::chrono::microseconds(100);
constexpr Duration kForgets = std::chrono::seconds(10);

double Ratio(Duration a, Duration b) {
  return std::chrono::duration<double>(a) / std::chrono::duration<double>(b);
}

}  // namespace

int64_t LatencyWindow::SpanOf(TimePoint when) {
  return when.time_since_epoch() / (kWindow / static_cast<int64_t>(kSpans));
}

void LatencyWindow::Add(TimePoint now, Duration took) {
  const int64_t number = SpanOf(now);
  Span& span = spans_[static_cast<size_t>(number) % kSpans];
  if (span.number != number) {
    span.number = number;
    span.calls.fill(0);
  }
  const double octaves = std::log2(std::max(Ratio(took, kShortest), 1.0));
  const auto bucket = static_cast<size_t>(octaves * kPerOctave);
  ++span.calls[std::min(bucket, kBuckets - 1)];
}

std::optional<Duration> LatencyWindow::Percentile(TimePoint now, uint32_t percent) const {
  const int64_t newest = SpanOf(now);
  std::array<uint64_t, kBuckets> calls = {};
  uint64_t total = 0;
  for (const Span& span : spans_) {
    if (span.number < 0 || newest - span.number >= static_cast<int64_t>(kSpans)) continue;
    for (size_t i = 0; i < kBuckets; ++i) {
      calls[i] += span.calls[i];
      total += span.calls[i];
    }
  }
  if (total < kLeastCalls) return std::nullopt;
  const uint64_t rank = (total * std::min(percent, 100U) + 99) / 100;
  size_t bucket = 0;
  for (uint64_t below = calls[0]; below < std::max<uint64_t>(rank, 1);) below += calls[++bucket];
  const double middle = (static_cast<double>(bucket) + 0.5) / kPerOctave;
  return std::chrono::duration_cast<Duration>(kShortest * std::exp2(middle));
}

void CpuAverage::Add(TimePoint now, Duration used) {
  if (!last_ || now <= *last_) {
    if (!last_) last_ = now;
    return;
  }
  const Duration time = now - *last_;
  last_ = now;
  const double newest = std::max(Ratio(used, time), 0.0);
  const double kept = cores_ ? std::exp2(-Ratio(time, kForgets)) : 0;
  cores_ = kept * cores_.value_or(0) + (1 - kept) * newest;
}

}  // namespace pulga
