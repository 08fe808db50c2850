// GatewayMetrics: what OpenFaaS' gateway tells Prometheus about calls, under its names and with its
// buckets. Only functions that exist are counted, each with a bounded number of status codes. Loop
// thread. Source: the gateway's metrics; prometheus.io, exposition formats, text 0.0.4.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "runtime/engine.h"

namespace pulga {

class GatewayMetrics {
 public:
  void NoteStarted(const FunctionKey& key);
  // `status`: what the caller got; 499 where it had left.
  void NoteEnded(const FunctionKey& key, int status, Duration time);
  // The text for a scrape. Functions that are no more are forgotten.
  std::string Text(const std::vector<FunctionStatus>& functions, const SystemReport& system);

 private:
  static constexpr std::array<double, 11> kBuckets = {.005, .01, .025, .05, .1, .25,
                                                      .5,   1,   2.5,  5,   10};
  struct ByCode {
    uint64_t count = 0;
    double seconds = 0;
    std::array<uint64_t, kBuckets.size()> within = {};  // of each bucket and all smaller ones
  };
  struct Function {
    uint64_t started = 0;
    std::map<int, ByCode> codes;  // 0: the rest, where a function makes up too many
  };
  Function* Find(const FunctionKey& key);

  std::map<FunctionKey, Function> functions_;
};

}  // namespace pulga
