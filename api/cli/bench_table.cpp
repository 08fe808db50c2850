#include "api/cli/bench_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMedian = 0.5, kMost = 0.9, kNearlyAll = 0.99;

std::string Millis(double ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", ms);
  return text;
}

// What the board's files say must not end a cell of the table.
std::string InCell(std::string_view text) {
  std::string out = Printable(text, 200);
  std::replace(out.begin(), out.end(), '|', '/');
  return out;
}

double Ratio(const std::vector<double>& values, const std::vector<double>& bare) {
  const double base = Quantile(bare, kMedian);
  return base > 0 ? Quantile(values, kMedian) / base : 0;
}

std::string Cells(const std::vector<double>& values, const std::vector<double>& bare) {
  if (values.empty()) return " - | - | - | - |";
  char ratio[32];
  std::snprintf(ratio, sizeof ratio, "%.2f", Ratio(values, bare));
  std::string out;
  for (const double q : {kMedian, kMost, kNearlyAll}) {
    out += " " + Millis(Quantile(values, q)) + " |";
  }
  return out + " " + ratio + " |";
}

Json StatsJson(const std::vector<double>& values, const std::vector<double>& bare) {
  if (values.empty()) return nullptr;
  return {{"median_ms", Quantile(values, kMedian)},
          {"p90_ms", Quantile(values, kMost)},
          {"p99_ms", Quantile(values, kNearlyAll)},
          {"ratio_to_bare", Ratio(values, bare)},
          {"samples_ms", values}};
}

// Of the two bare steps, in the column they belong to.
const std::vector<double>& BareFirstByte(const BenchReceipt& receipt) {
  return receipt.steps[0].client_ms;
}
const std::vector<double>& BareEnd(const BenchReceipt& receipt) {
  return receipt.steps[1].client_ms;
}

}  // namespace

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
}

std::string BenchMarkdown(const BenchReceipt& receipt) {
  std::string out = "### pulga bench\n\n| board | |\n| --- | --- |\n";
  for (const auto& [name, value] : receipt.board) {
    out += "| " + InCell(name) + " | " + InCell(value) + " |\n";
  }
  out +=
      "\n| step, ms | runs | in the daemon: median | p90 | p99 | x bare | at the client: median "
      "| p90 | p99 | x bare |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
  for (size_t i = 0; i < receipt.steps.size(); ++i) {
    const BenchStep& step = receipt.steps[i];
    const size_t runs = std::max(step.daemon_ms.size(), step.client_ms.size());
    const std::vector<double>& base = i == 0 ? BareFirstByte(receipt) : BareEnd(receipt);
    out += "| " + step.name + " | " + std::to_string(runs) + " |" +
           Cells(step.daemon_ms, BareFirstByte(receipt)) + Cells(step.client_ms, base) + "\n";
  }
  if (receipt.discarded > 0) {
    out += "\n" + std::to_string(receipt.discarded) +
           " calls found another instance than their step is about, and do not count.\n";
  }
  return out;
}

std::string BenchJson(const BenchReceipt& receipt) {
  Json board = Json::object();
  for (const auto& [name, value] : receipt.board) board[name] = value;
  Json steps = Json::array();
  for (size_t i = 0; i < receipt.steps.size(); ++i) {
    const BenchStep& step = receipt.steps[i];
    const std::vector<double>& base = i == 0 ? BareFirstByte(receipt) : BareEnd(receipt);
    steps.push_back({{"name", step.name},
                     {"daemon", StatsJson(step.daemon_ms, BareFirstByte(receipt))},
                     {"client", StatsJson(step.client_ms, base)}});
  }
  const Json json = {
      {"board", std::move(board)}, {"steps", std::move(steps)}, {"discarded", receipt.discarded}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace pulga::cli
