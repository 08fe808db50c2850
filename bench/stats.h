// A series of measured microseconds and its order statistics. Medians, never means: the machines
// these run on have neighbours. And how a program that measures ends.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace pulga::bench {

struct Series {
  std::string name;
  std::vector<double> microseconds;

  double Quantile(double q) const;  // 0 for an empty series
};

// "name n min p50 p90 p99 ratio" per series, the ratio of p50 against the first one's; as JSON
// lines.
void PrintJson(const std::string& condition, const std::vector<Series>& series);

double NowMicros();  // CLOCK_MONOTONIC

// What main returns; an error goes to stderr.
int ExitStatus(const char* program, const Status& done);

}  // namespace pulga::bench
