// What a scrape of Prometheus reads: families of samples as text, and histograms of how long
// something took, with the buckets that Go's client library has as its default. Pure.
// Source: prometheus.io, exposition formats, text 0.0.4; client_golang's DefBuckets.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/clock.h"

namespace pulga {

class LatencyHistogram {
 public:
  void Note(Duration time);
  uint64_t count() const { return count_; }
  // NAME_bucket, NAME_sum and NAME_count; `labels`: `code="200",method="GET"`.
  void Append(const std::string& name, const std::string& labels, std::string* out) const;

 private:
  static constexpr std::array<double, 11> kBuckets = {.005, .01, .025, .05, .1, .25,
                                                      .5,   1,   2.5,  5,   10};
  uint64_t count_ = 0;
  double seconds_ = 0;
  std::array<uint64_t, kBuckets.size()> within_ = {};  // of each bucket and all smaller ones
};

// The two lines before a family's samples.
struct MetricFamily {
  const char* name;
  const char* type;
  const char* help;
};
void AppendFamily(const MetricFamily& family, std::string* out);
void AppendSample(const std::string& name, const std::string& labels, uint64_t value,
                  std::string* out);

}  // namespace pulga
