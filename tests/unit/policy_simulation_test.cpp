// All decisions together, on thousands of random boards with a clock of their own.
#include <gtest/gtest.h>

#include <chrono>

#include "tests/support/board_simulation.h"

namespace pulga {
namespace {

class BoardSimulation : public ::testing::TestWithParam<uint32_t> {};

// A hundred schedules each: the parameter is the first seed. What breaks names its own.
TEST_P(BoardSimulation, KeepsWhatItPromises) {
  uint64_t accepted = 0, refused = 0;
  Duration longest{};
  for (uint32_t seed = GetParam(); seed < GetParam() + 100; ++seed) {
    SimulationRules rules;
    rules.functions = 1 + seed % 7;
    rules.budget = (64 + seed % 5 * 96) * (1ULL << 20);
    const SimulationResult result = SimulateBoard(seed, rules);
    ASSERT_EQ(result.broken, "") << "seed " << seed;
    accepted += result.accepted;
    refused += result.refused;
    longest = std::max(longest, result.longest_wait);
  }
  EXPECT_GT(accepted, 5000U);
  EXPECT_LT(refused, accepted / 2);
  RecordProperty("longest_wait_ms", static_cast<int>(longest / std::chrono::milliseconds(1)));
}

INSTANTIATE_TEST_SUITE_P(Seeds, BoardSimulation, ::testing::Range(0U, 1000U, 100U));

}  // namespace
}  // namespace pulga
