// Functions that want more than there is: the real dispatcher and pools, by a clock of their own.
// None starves another, and starts go by weight, to a twentieth.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace pulga
