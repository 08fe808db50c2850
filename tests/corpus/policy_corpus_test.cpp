// The public trace: the figures other policies are known for come out, and ours are better.
#include <gtest/gtest.h>

#include "runtime/policy/replay.h"

namespace pulga {
namespace {

constexpr double kGiB = 1ULL << 30;

class PolicyCorpus : public ::testing::Test {
 protected:
  void SetUp() override {
    auto read = ReadTrace(PULGA_TRACES_DIR "/azure2019-100fn-480min-invocations.csv");
    ASSERT_TRUE(read.ok()) << read.error().message;
    trace = std::move(read).value();
  }
  ReplayCost CostOf(const std::string& name, uint64_t budget = 0) {
    const std::vector<Duration> ttls = {std::chrono::minutes(1),  std::chrono::minutes(5),
                                        std::chrono::minutes(10), std::chrono::minutes(20),
                                        std::chrono::minutes(60), std::chrono::minutes(120)};
    for (const ReplayPolicy& policy : StandardPolicies(budget, ttls)) {
      if (policy.name == name) return Replay(trace, policy, {});
    }
    ADD_FAILURE() << "no policy " << name;
    return {};
  }

  Trace trace;
};

TEST_F(PolicyCorpus, FixedTimesCostWhatIsKnown) {
  const std::vector<std::tuple<std::string, uint64_t, double>> known = {
      {"fixed 1m", 4215, 0.74}, {"fixed 5m", 734, 1.92}, {"fixed 10m", 481, 2.26},
      {"fixed 20m", 248, 2.62}, {"fixed 1h", 123, 3.41}, {"fixed 2h", 111, 3.75}};
  for (const auto& [name, cold, gib] : known) {
    const ReplayCost cost = CostOf(name);
    EXPECT_EQ(cost.at(Rung::kCold), cold) << name;
    EXPECT_NEAR(cost.idle_bytes / kGiB, gib, 0.02) << name;
  }
}

TEST_F(PolicyCorpus, TheHybridHistogramCostsWhatIsKnown) {
  const ReplayCost cost = CostOf("hybrid histogram");
  EXPECT_NEAR(static_cast<double>(cost.at(Rung::kCold)), 155, 2);
  EXPECT_NEAR(cost.idle_bytes / kGiB, 2.49, 0.15);
}

TEST_F(PolicyCorpus, GreedyDualCostsWhatIsKnown) {
  const std::vector<std::pair<uint64_t, double>> known = {
      {512, 9892}, {1024, 8292}, {2048, 5318}, {4096, 964}};
  for (const auto& [mib, cold] : known) {
    const auto got = static_cast<double>(CostOf("greedy-dual", mib << 20).at(Rung::kCold));
    EXPECT_NEAR(got, cold, 0.03 * cold) << mib;  // the order within a minute is anybody's guess
  }
}

TEST_F(PolicyCorpus, TheLadderIsBetterThanTheHybridHistogram) {
  for (const char* name : {"ladder, no swap", "ladder, zram", "ladder, zram, timers known"}) {
    const ReplayCost cost = CostOf(name);
    EXPECT_LT(cost.program_starts(), 155U) << name;  // parked ones too, not only the cold ones
    EXPECT_LT(cost.idle_bytes / kGiB, 2.49) << name;
  }
}

TEST_F(PolicyCorpus, TheLadderIsBetterThanGreedyDualWithinABudget) {
  for (const char* name : {"ladder, no swap", "ladder, zram", "ladder, zram, timers known"}) {
    EXPECT_LT(CostOf(name, 1ULL << 30).program_starts(), 8292U) << name;
    EXPECT_LT(CostOf(name, 2ULL << 30).program_starts(), 5318U) << name;
    EXPECT_LE(CostOf(name, 2ULL << 30).peak_bytes, 2ULL << 30) << name;
  }
}

TEST_F(PolicyCorpus, ALiveReplaysTraceIsReadToo) {
  const auto live = ReadTrace(PULGA_TRACES_DIR "/replay-300s-trace.csv");
  ASSERT_TRUE(live.ok()) << live.error().message;
  uint64_t calls = 0;
  for (const TraceCall& call : live->calls) calls += call.calls;
  EXPECT_EQ(calls, 11868U);
  EXPECT_EQ(live->functions.size(), 21U);
}

}  // namespace
}  // namespace pulga
