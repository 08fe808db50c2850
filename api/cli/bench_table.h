// What `pulga bench` measured, as the receipt people paste: order statistics, never means. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pulga::cli {

// Milliseconds of one step, a value for each run.
struct BenchStep {
  std::string name;
  std::vector<double> daemon_ms;  // by the daemon's receipt; empty: it has none for this
  std::vector<double> client_ms;  // by our own clock
};

struct BenchReceipt {
  std::vector<std::pair<std::string, std::string>> board;  // "kernel", "6.1.0"
  // The first two are the bare program's: to its first byte, which receipts are compared with, and
  // to its end, which replies are.
  std::vector<BenchStep> steps;
  size_t discarded = 0;  // calls that found another instance than the step is about
};

double Quantile(std::vector<double> values, double q);  // nearest rank; 0 of nothing
std::string BenchMarkdown(const BenchReceipt& receipt);
std::string BenchJson(const BenchReceipt& receipt);

}  // namespace pulga::cli
