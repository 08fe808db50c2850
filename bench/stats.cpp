#include "bench/stats.h"

#include <time.h>

#include <algorithm>
#include <cstdio>

namespace pulga::bench {

double Series::Quantile(double q) const {
  if (microseconds.empty()) return 0;
  std::vector<double> sorted = microseconds;
  std::sort(sorted.begin(), sorted.end());
  const auto at = static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5);
  return sorted[at];
}

void PrintJson(const std::string& condition, const std::vector<Series>& series) {
  const double base = series.empty() ? 0 : series.front().Quantile(0.5);
  for (const Series& s : series) {
    const double p50 = s.Quantile(0.5);
    printf(
        "{\"condition\":\"%s\",\"name\":\"%s\",\"n\":%zu,\"min_us\":%.1f,\"p50_us\":%.1f,"
        "\"p90_us\":%.1f,\"p99_us\":%.1f,\"ratio\":%.3f}\n",
        condition.c_str(), s.name.c_str(), s.microseconds.size(), s.Quantile(0), p50,
        s.Quantile(0.9), s.Quantile(0.99), base > 0 ? p50 / base : 0);
  }
  fflush(stdout);
}

double NowMicros() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

int ExitStatus(const char* program, const Status& done) {
  if (done.ok()) return 0;
  fprintf(stderr, "%s: %s\n", program, done.error().message.c_str());
  return 1;
}

}  // namespace pulga::bench
