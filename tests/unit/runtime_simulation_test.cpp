// The real dispatcher and pools, over random schedules, by a clock of their own. A schedule that
// breaks prints its seed; PULGA_SIMULATION_SEED=N runs that one alone, PULGA_SIMULATIONS=N so many.
#include "tests/support/runtime_simulation.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <vector>

#include "tests/support/sim_sandbox.h"

namespace pulga {
namespace {

using testing::RuntimeSimulationResult;
using testing::RuntimeSimulationRules;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kSchedules = 80;  // each takes fifty times as long
#else
constexpr uint32_t kSchedules = 500;
#endif

uint32_t Setting(const char* name, uint32_t otherwise) {
  const char* text = getenv(name);
  return text == nullptr ? otherwise : static_cast<uint32_t>(std::strtoul(text, nullptr, 10));
}

RuntimeSimulationResult SimulateMany(const RuntimeSimulationRules& rules) {
  const uint32_t first = Setting("PULGA_SIMULATION_SEED", 1);
  const bool one = getenv("PULGA_SIMULATION_SEED") != nullptr;
  const uint32_t runs = one ? 1 : Setting("PULGA_SIMULATIONS", kSchedules);
  RuntimeSimulationResult all;
  const clock_t begun = std::clock();
  for (uint32_t seed = first; seed - first < runs; ++seed) {
    const RuntimeSimulationResult result = testing::SimulateRuntime(seed, rules);
    EXPECT_EQ(result.broken, "") << "PULGA_SIMULATION_SEED=" << seed;
    if (!result.broken.empty()) break;
    all.calls += result.calls;
    all.served += result.served;
    all.refused += result.refused;
    all.failed += result.failed;
    all.redeploys += result.redeploys;
    all.freezes += result.freezes;
    all.thaws += result.thaws;
    all.reclaims += result.reclaims;
  }
  if (!::testing::Test::HasFailure()) {
    const double seconds = static_cast<double>(std::clock() - begun + 1) / CLOCKS_PER_SEC;
    std::printf("%u schedules, %.0f calls: %.0f schedules per second of processor time\n", runs,
                static_cast<double>(all.calls), runs / seconds);
  }
  ::testing::Test::RecordProperty("calls", std::to_string(all.calls));
  return all;
}

TEST(RuntimeSimulation, KeepsItsPromises) {
  const RuntimeSimulationResult all = SimulateMany({});
  EXPECT_GT(all.served, all.calls / 2) << "most are served, or little was tried";
  EXPECT_GT(all.failed, 0U);
  EXPECT_GT(all.thaws, 0U);
  EXPECT_GT(all.freezes, all.thaws);
  EXPECT_GT(all.reclaims, 0U);
}

TEST(RuntimeSimulation, KeepsThemOnABoardThatIsFarTooSmall) {
  RuntimeSimulationRules rules;
  rules.functions = 8;
  rules.budget = 72 << 20;
  rules.max_instances = 3;
  rules.min_one_in = 0;  // who is promised the little there is has it for good
  rules.longest_wait = std::chrono::seconds(120);
  EXPECT_GT(SimulateMany(rules).served, 0U);
}

TEST(RuntimeSimulation, GivesTheSameOverTheKernelsDescriptors) {
  RuntimeSimulationRules kernels;
  kernels.descriptors = RuntimeSimulationRules::Descriptors::kKernels;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const RuntimeSimulationResult one = testing::SimulateRuntime(seed, {});
    const RuntimeSimulationResult two = testing::SimulateRuntime(seed, kernels);
    EXPECT_EQ(two.broken, "") << seed;
    EXPECT_EQ(one.served, two.served) << seed;
    EXPECT_EQ(one.failed, two.failed) << seed;
    EXPECT_EQ(one.programs, two.programs) << seed;
    EXPECT_EQ(one.longest_wait, two.longest_wait) << seed;
  }
}

TEST(RuntimeSimulation, GivesTheSameForTheSameSeedWhateverTheHeapLooksLike) {
  std::vector<std::unique_ptr<char[]>> holes;
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    const RuntimeSimulationResult one = testing::SimulateRuntime(seed, {});
    for (size_t size = 16; size < 4096; size += 16) {
      holes.push_back(std::make_unique<char[]>(size * seed));
      if (size % 48 == 0) holes.erase(holes.begin() + static_cast<ptrdiff_t>(holes.size() / 2));
    }
    const RuntimeSimulationResult two = testing::SimulateRuntime(seed, {});
    EXPECT_EQ(one.served, two.served) << seed;
    EXPECT_EQ(one.programs, two.programs) << seed;
    EXPECT_EQ(one.longest_wait, two.longest_wait) << seed;
  }
}

TEST(SimSandbox, TakesAnyTimeUpToTheLongest) {
  const auto loop = EventLoop::Create().value();
  const FakeClock clock;
  testing::SimSandbox sandbox(*loop, clock, 1);
  int early = 0, late = 0;
  for (int i = 0; i < 1000; ++i) {
    const Duration time = sandbox.Within(std::chrono::seconds(1));
    ASSERT_GE(time, Duration::zero());
    ASSERT_LE(time, std::chrono::seconds(1));
    time < std::chrono::milliseconds(500) ? ++early : ++late;
  }
  EXPECT_GT(early, 400);
  EXPECT_GT(late, 400);
}

}  // namespace
}  // namespace pulga
