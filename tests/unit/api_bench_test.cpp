// The receipt of `pulga bench`: its statistics, its table, and the archive it imports.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/cli/bench_steps.h"
#include "api/cli/bench_table.h"
#include "api/json_codec.h"

namespace pulga::cli {
namespace {

using ::testing::HasSubstr;

TEST(BenchTable, QuantilesAreValuesThatWereMeasured) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({7}, 0.99), 7);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.5), 2);
  std::vector<double> hundred;
  for (int i = 100; i > 0; --i) hundred.push_back(i);
  EXPECT_EQ(Quantile(hundred, 0.5), 50);
  EXPECT_EQ(Quantile(hundred, 0.9), 90);
  EXPECT_EQ(Quantile(hundred, 0.99), 99);
  EXPECT_EQ(Quantile(hundred, 0), 1);
}

BenchReceipt Sample() {
  BenchReceipt receipt;
  receipt.board = {{"model", "A | board"}, {"kernel", "6.1"}};
  receipt.steps = {{"bare first", {}, {0.2, 0.1, 0.3}},
                   {"bare end", {}, {0.4, 0.4, 0.4}},
                   {"start", {0.6, 0.5, 0.7}, {1.0, 0.8, 1.2}},
                   {"build", {4, 4, 4}, {}}};
  return receipt;
}

TEST(BenchTable, ReceiptsAreComparedWithTheFirstByteAndRepliesWithTheEnd) {
  const std::string table = BenchMarkdown(Sample());
  EXPECT_THAT(table,
              HasSubstr("| bare first | 3 | - | - | - | - | 0.200 | 0.300 | 0.300 | 1.00 |"));
  EXPECT_THAT(table, HasSubstr("| start | 3 | 0.600 | 0.700 | 0.700 | 3.00 "
                               "| 1.000 | 1.200 | 1.200 | 2.50 |"));
  EXPECT_THAT(table, HasSubstr("| build | 3 | 4.000 | 4.000 | 4.000 | 20.00 | - | - | - | - |"));
  EXPECT_THAT(table, Not(HasSubstr("do not count")));
}

TEST(BenchTable, WhatTheBoardSaysEndsNoCell) {
  EXPECT_THAT(BenchMarkdown(Sample()), HasSubstr("| model | A / board |"));
}

TEST(BenchTable, EveryRowHasAsManyCellsAsTheHead) {
  BenchReceipt receipt = Sample();
  receipt.discarded = 2;
  const std::string table = BenchMarkdown(receipt);
  const std::string steps = table.substr(table.find("| step, ms"));
  size_t cells = 0;
  for (size_t at = 0; steps[at] == '|';) {
    const size_t end = steps.find('\n', at);
    const auto count = std::count(steps.begin() + static_cast<std::ptrdiff_t>(at),
                                  steps.begin() + static_cast<std::ptrdiff_t>(end), '|');
    if (cells == 0) cells = static_cast<size_t>(count);
    EXPECT_EQ(static_cast<size_t>(count), cells) << steps.substr(at, end - at);
    at = end + 1;
  }
  EXPECT_THAT(table, HasSubstr("2 calls found another instance"));
}

TEST(BenchTable, JsonHasEverySampleAndNullForNone) {
  const std::string json = BenchJson(Sample());
  EXPECT_THAT(json, HasSubstr(R"("name":"build","daemon":{"median_ms":4.0)"));
  EXPECT_THAT(json, HasSubstr(R"("client":null)"));
  EXPECT_THAT(json, HasSubstr(R"("samples_ms":[0.6,0.5,0.7])"));
}

TEST(BenchSteps, TheSpawnerIsGoneWhenThatWasDoneLast) {
  FunctionStatus status;
  status.key.name = "cold";
  const auto gone_after = [&status](const std::string& text) {
    status.activity.last_decision = text;
    status.activity.decisions.push_back({0, text});
    return SpawnerIsGone(FunctionJson(status, {}));
  };
  EXPECT_FALSE(gone_after("builds the spawner: a call waits"));
  EXPECT_TRUE(gone_after("drops the spawner: unused for 100ms"));
  EXPECT_FALSE(gone_after("builds the spawner: a call waits")) << "it was dropped before that";
}

TEST(BenchTar, IsAPlainTarOfWholeBlocks) {
  const std::string tar = MakeTar({{"a", "xy"}, {"b", std::string_view("\0\1", 2)}});
  EXPECT_EQ(tar.size(), 6 * 512U);
  EXPECT_EQ(tar.substr(0, 2), std::string("a\0", 2));
  EXPECT_EQ(tar.substr(124, 12), std::string("00000000002\0", 12));
  EXPECT_EQ(tar.substr(257, 5), "ustar");
  EXPECT_EQ(tar.substr(512, 2), "xy");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(tar[i]);
  }
  EXPECT_EQ(std::stoul(tar.substr(148, 6), nullptr, 8), sum);
}

}  // namespace
}  // namespace pulga::cli
