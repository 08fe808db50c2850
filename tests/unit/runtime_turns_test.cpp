// Functions that want more than there is: the real dispatcher and pools, by a clock of their own.
// None starves another, and starts go by weight, to a twentieth.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/contention.h"

namespace pulga {
namespace {

using std::chrono::seconds;
using testing::ContentionResult;
using testing::ContentionRules;
using testing::Rival;
using testing::SimulateContention;

constexpr uint64_t kMiB = 1 << 20;

class TurnsTest : public ::testing::Test {
 protected:
  // Of all starts, as the weights are of all weights.
  void ExpectSharesByWeight(const std::vector<Rival>& rivals) {
    const ContentionResult result = SimulateContention(rivals, rules);
    EXPECT_GT(result.served, 250U);
    double weights = 0;
    for (const Rival& rival : rivals) weights += rival.weight;
    for (size_t r = 0; r < rivals.size(); ++r) {
      const double due = static_cast<double>(result.served) * rivals[r].weight / weights;
      EXPECT_NEAR(static_cast<double>(result.rivals[r].served), due, due / 20 + 2) << r;
    }
  }
  ContentionRules rules;
};

TEST_F(TurnsTest, StartsGoByWeightWhereMemoryIsShort) {
  ExpectSharesByWeight({{100, 64 * kMiB, 8}, {200, 64 * kMiB, 8}, {700, 64 * kMiB, 8}});
}

TEST_F(TurnsTest, StartsGoByWeightWherePlacesAreShort) {
  rules.budget = 100 * 1024 * kMiB;
  rules.max_instances = 5;
  ExpectSharesByWeight({{100, 64 * kMiB, 8}, {50, 128 * kMiB, 8}, {300, 32 * kMiB, 8}});
}

TEST_F(TurnsTest, HoweverManyCallsOneHasAnotherGetsItsTurn) {
  const auto result = SimulateContention({{100, 64 * kMiB, 500}, {100, 64 * kMiB, 0}}, rules);
  EXPECT_GT(result.rivals[0].longest_wait, seconds(3)) << "or nothing was short";
  EXPECT_LT(result.rivals[1].longest_wait, seconds(1));
  EXPECT_GE(result.rivals[1].served, 8U) << "of 10";
}

TEST_F(TurnsTest, ALightOneGetsItsTurnBesideManyHeavyOnes) {
  std::vector<Rival> rivals(5, Rival{1000, 64 * kMiB, 5});
  rivals.push_back({100, 64 * kMiB, 1});
  const auto result = SimulateContention(rivals, rules);
  EXPECT_GE(result.rivals[5].served, 4U);
}

TEST_F(TurnsTest, ALargeOneGetsItsTurnBesideSmallOnes) {
  const std::vector<Rival> rivals = {
      {100, 32 * kMiB, 10}, {100, 32 * kMiB, 10}, {100, 256 * kMiB, 0}};
  const auto result = SimulateContention(rivals, rules);
  EXPECT_GE(result.rivals[2].served, 3U) << "it needs the whole budget each time";
  EXPECT_GT(result.rivals[0].served, 25U);
}

// How often it looks at the clock stands for what it thinks about: every decision does.
uint64_t LooksPerStart(size_t rivals) {
  const ContentionResult result =
      SimulateContention(std::vector<Rival>(rivals, {100, 64 * kMiB, 2}), ContentionRules());
  EXPECT_GT(result.served, 250U);
  return result.looks / std::max<uint64_t>(result.served, 1);
}

TEST(Turns, AStartCostsHardlyMoreWhereSixteenTimesAsManyWait) {
  const uint64_t few = LooksPerStart(10);
  const uint64_t many = LooksPerStart(160);
  RecordProperty("looks_of_ten", std::to_string(few));
  RecordProperty("looks_of_160", std::to_string(many));
  EXPECT_LT(many, 2 * few);
}

}  // namespace
}  // namespace pulga
