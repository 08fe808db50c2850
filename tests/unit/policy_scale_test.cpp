// How many instances, and how large: windows, horizontal and vertical scaling.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "runtime/policy/autoscaler.h"
#include "runtime/policy/load_window.h"
#include "runtime/policy/resizer.h"
#include "runtime/policy/use_window.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

const TimePoint kStart{hours(1)};

TEST(LoadWindow, WeighsLevelsByHowLongTheyLasted) {
  LoadWindow window(kStart);
  window.Set(kStart, 10);
  window.Set(kStart + milliseconds(500), 0);
  EXPECT_NEAR(window.Average(kStart + seconds(2), minutes(1)), 2.5, 1e-6);
}

TEST(LoadWindow, ForgetsWhatIsOlderThanTheWindow) {
  LoadWindow window(kStart);
  window.Set(kStart, 30);
  window.Set(kStart + seconds(30), 0);
  EXPECT_NEAR(window.Average(kStart + seconds(60) - milliseconds(1), seconds(60)), 15, 0.3);
  EXPECT_EQ(window.Average(kStart + seconds(40), seconds(6)), 0);
  EXPECT_EQ(window.Average(kStart + seconds(91), seconds(60)), 0);
}

TEST(LoadWindow, ALongSilenceOrALongLevelIsOneStep) {
  LoadWindow window(kStart);
  window.Set(kStart, 3);
  EXPECT_NEAR(window.Average(kStart + hours(1000), seconds(60)), 3, 1e-3);
  window.Set(kStart + hours(1000), 0);
  EXPECT_EQ(window.Average(kStart + hours(2000), seconds(60)), 0);
}

TEST(LoadWindow, TimeNeverGoesBack) {
  LoadWindow window(kStart);
  window.Set(kStart + seconds(10), 4);
  window.Set(kStart + seconds(5), 2);
  EXPECT_EQ(window.level(), 2U);
  EXPECT_NEAR(window.Average(kStart + seconds(11), seconds(1)), 2, 1e-6);
}

TEST(LoadWindow, EqualsThePlainSum) {
  std::mt19937 random(2);
  LoadWindow window(kStart);
  std::vector<uint32_t> by_ms;  // the level of each
  for (int step = 0; step < 2000; ++step) {
    const auto now = kStart + milliseconds(by_ms.size());
    const uint32_t level = random() % 50;
    window.Set(now, level);
    by_ms.insert(by_ms.end(), 1 + random() % 400, level);
    const size_t at = by_ms.size();
    const size_t from = at < 60000 ? 0 : (at / 1000 - 59) * 1000;
    double sum = 0;
    for (size_t ms = from; ms < at; ++ms) sum += by_ms[ms];
    ASSERT_NEAR(window.Average(kStart + milliseconds(at), seconds(60)),
                sum / static_cast<double>(at - from), 0.01);
  }
}

TEST(CallRate, IsCallsPerSecondAndFades) {
  CallRate rate(kStart);
  rate.OnCall(kStart + milliseconds(1));
  EXPECT_LT(rate.PerSecond(kStart + milliseconds(2), seconds(6)), 0.3) << "one is not many";
  TimePoint now = kStart;
  for (; now < kStart + seconds(90); now += milliseconds(100)) rate.OnCall(now);
  EXPECT_NEAR(rate.PerSecond(now, seconds(60)), 10, 0.2);
  EXPECT_NEAR(rate.PerSecond(now, seconds(6)), 10, 0.2);
  EXPECT_NEAR(rate.PerSecond(now + seconds(30), seconds(60)), 5, 0.2);
  EXPECT_EQ(rate.PerSecond(now + seconds(30), seconds(6)), 0);
  EXPECT_EQ(rate.PerSecond(now + hours(5), seconds(60)), 0);
  CallRate early(TimePoint{seconds(3)});  // a board that has just started
  early.OnCall(TimePoint{seconds(4)});
  EXPECT_GT(early.PerSecond(TimePoint{seconds(5)}, seconds(6)), 0);
}

class Autoscaler : public ::testing::Test {
 protected:
  Autoscaler() {
    rules.max = 20;
    load.now = load.last_call = kStart;
  }
  // With so many calls under way, for long.
  void Calls(double calls) { load.stable_calls = load.panic_calls = calls; }
  uint32_t Plan() {
    decision = PlanScale(load, rules, &state);
    return decision.wanted;
  }
  std::string Reason() {
    Plan();
    return Why(decision);
  }
  // Does what it says each second, without calls.
  void RunFor(Duration duration) {
    for (const TimePoint end = load.now + duration; load.now < end; load.now += seconds(1)) {
      load.instances = Plan();
    }
  }

  ScaleRules rules;
  LoadSnapshot load;
  ScaleState state;
  ScaleDecision decision;
};

TEST_F(Autoscaler, GivesEachInstanceItsShareOfCalls) {
  rules.calls_per_instance = 10;
  load.instances = 4;
  Calls(47);
  EXPECT_EQ(Reason(), "from 4 to 5 instances: so many calls are under way");
  load.instances = 5;
  EXPECT_EQ(Reason(), "stays at 5 instances: they are what the load needs");
}

TEST_F(Autoscaler, AWaitingCallIsEnoughToStartFromZero) {
  load.waiting = 1;
  EXPECT_EQ(Reason(), "from 0 to 1 instance: calls are waiting");
}

TEST_F(Autoscaler, FollowsCallsPerSecondUpAtOnceAndDownSlowly) {
  rules.calls_per_instance = 100;
  rules.rate_target = 5;
  load.instances = 1;
  load.panic_rate = 5.4;
  EXPECT_EQ(Plan(), 1U) << "within a tenth";
  load.panic_rate = 10;
  load.stable_rate = 1;
  EXPECT_EQ(Reason(), "from 1 to 2 instances: so many calls come per second (10, 5 for each)");
  EXPECT_EQ(decision.look_again, kStart + seconds(2)) << "it fades while nobody calls";
  load.instances = 2;
  EXPECT_EQ(Plan(), 2U);
  load.panic_rate = 0;
  load.stable_rate = 4;
  EXPECT_EQ(Reason(), "stays at 2 instances: fewer would do, but not for long enough yet");
  load.now += seconds(30);
  EXPECT_EQ(Reason(), "from 2 to 1 instance: fewer have been enough for a while");
  load.stable_rate = 1000;
  EXPECT_EQ(Plan(), rules.max);
  rules.rate_target.reset();
  load.instances = 1;
  EXPECT_EQ(Plan(), 1U) << "nobody asked";
}

TEST_F(Autoscaler, PanicsAtTwiceTheLoadAndCalmsDownAMinuteLater) {
  load.instances = 2;
  load.stable_calls = 2;
  load.panic_calls = 3.9;
  EXPECT_EQ(Plan(), 2U);
  load.panic_calls = 9;
  EXPECT_EQ(Reason(), "from 2 to 9 instances: many more calls came within seconds");
  load.instances = 9;
  load.panic_calls = 1;
  load.now += seconds(59);
  EXPECT_EQ(Reason(), "stays at 9 instances: none goes so soon after a burst");
  EXPECT_EQ(decision.look_again, kStart + seconds(60));
  load.now += seconds(1);
  EXPECT_EQ(Reason(), "stays at 9 instances: fewer would do, but not for long enough yet");
}

TEST_F(Autoscaler, GoesDownByHalvesOnceFewerWereEnoughForLong) {
  load.instances = 9;
  Calls(1);
  EXPECT_EQ(Plan(), 9U);
  load.now += seconds(30);
  EXPECT_EQ(Reason(), "from 9 to 4 instances: fewer have been enough for a while");
  load.instances = 4;
  load.now += seconds(29);
  EXPECT_EQ(Plan(), 4U);
  load.now += seconds(1);
  EXPECT_EQ(Plan(), 2U);
}

TEST_F(Autoscaler, GoesDownToTheMostThatWasNeededMeanwhile) {
  load.instances = 9;
  Calls(2);
  Plan();
  load.now += seconds(10);
  Calls(7);
  Plan();
  load.now += seconds(20);
  Calls(2);
  EXPECT_EQ(Plan(), 7U);
}

TEST_F(Autoscaler, ALoadThatComesBackStartsTheWaitAnew) {
  load.instances = 4;
  Calls(1);
  Plan();
  load.now += seconds(20);
  Calls(4);
  Plan();
  load.now += seconds(10);
  Calls(1);
  EXPECT_EQ(Plan(), 4U);
}

TEST_F(Autoscaler, TheLastGoesWhenNoCallCameForLong) {
  load.instances = 1;
  RunFor(seconds(59));
  EXPECT_EQ(load.instances, 1U);
  RunFor(seconds(2));
  EXPECT_EQ(load.instances, 0U);
}

TEST_F(Autoscaler, SaysThatItWasIdle) {
  load.instances = 1;
  Plan();
  load.now += seconds(60);
  EXPECT_EQ(Reason(), "from 1 to 0 instances: no call came for a while");
}

TEST_F(Autoscaler, ScaleToZeroEndsAtMin) {
  rules.min = 2;
  load.instances = 8;
  RunFor(minutes(10));
  EXPECT_EQ(load.instances, 2U);
  EXPECT_EQ(decision.look_again, std::nullopt);  // nothing changes by itself any more
  load.instances = 0;
  EXPECT_EQ(Reason(), "from 0 to 2 instances: scale.min");
}

TEST_F(Autoscaler, NeverPassesMax) {
  load.instances = 20;
  Calls(400);
  load.waiting = 500;
  EXPECT_EQ(Reason(), "stays at 20 instances: scale.max allows no more");
  rules.max = 3;
  EXPECT_EQ(Plan(), 3U);
  rules.min = 9;
  EXPECT_EQ(Plan(), 3U);
  rules.max = 0;
  EXPECT_EQ(Plan(), 0U);
}

TEST_F(Autoscaler, GrowsByARateWhereOneIsSet) {
  rules.most_up = 2;
  load.waiting = 15;
  EXPECT_EQ(Plan(), 2U);
  load.instances = 4;
  EXPECT_EQ(Plan(), 8U);
}

TEST_F(Autoscaler, KeepsProcessorsAtTheirTarget) {
  rules.cpu_target = 0.8;
  load.instances = 4;
  Calls(1);
  load.cpu = 1.0;
  EXPECT_EQ(Reason(),
            "from 4 to 5 instances: they use more of their processors than they should (100 %, not "
            "80 %)");
  load.cpu = 0.85;  // within a tenth of the target
  EXPECT_EQ(Plan(), 4U);
}

TEST_F(Autoscaler, ProcessorsCountOnlyWhereTheyAreAskedFor) {
  load.instances = 4;
  Calls(4);
  load.cpu = 1.0;
  EXPECT_EQ(Plan(), 4U);
}

TEST_F(Autoscaler, BackgroundWorkKeepsNoInstance) {
  rules.cpu_target = 0.8;
  load.instances = 1;
  load.cpu = 1.0;
  RunFor(seconds(62));
  EXPECT_EQ(load.instances, 0U);
}

class LatencyScaler : public Autoscaler {
 protected:
  LatencyScaler() {
    rules.latency_target = milliseconds(100);
    rules.calls_per_instance = 100;
  }
  // As long as `latency_of` says, by how many instances there are; the most there ever were.
  uint32_t Serve(Duration duration, const std::function<Duration(uint32_t)>& latency_of) {
    uint32_t most = 0;
    for (const TimePoint end = load.now + duration; load.now < end; load.now += seconds(2)) {
      load.latency = latency_of(load.instances);
      load.instances = Plan();
      most = std::max(most, load.instances);
    }
    return most;
  }
};

TEST_F(LatencyScaler, DoublesAtMost) {
  load.instances = 3;
  Calls(30);
  load.latency = milliseconds(900);
  EXPECT_EQ(Reason(),
            "from 3 to 6 instances: answers take longer than they should (900ms, not 100ms)");
}

TEST_F(LatencyScaler, AsksForNoMoreThanThereAreCalls) {
  load.instances = 3;
  Calls(4);
  load.latency = milliseconds(900);
  EXPECT_EQ(Plan(), 4U);
}

TEST_F(LatencyScaler, WaitsToSeeWhetherTheFirstOnesHelped) {
  load.instances = 2;
  Calls(30);
  load.latency = milliseconds(900);
  load.instances = Plan();
  load.now += seconds(44);
  EXPECT_EQ(Plan(), 4U);
  EXPECT_EQ(decision.look_again, kStart + seconds(45));
  load.latency = milliseconds(500);
  load.now += seconds(1);
  EXPECT_EQ(Plan(), 8U);
}

TEST_F(LatencyScaler, FindsWhatTheLoadNeedsAndStaysThere) {
  load.instances = 1;
  Calls(12);
  const auto shared = [](uint32_t n) { return milliseconds(600 / std::max(n, 1U)); };
  EXPECT_LE(Serve(minutes(10), shared), 8U);
  EXPECT_GE(load.instances, 6U);
  const uint32_t settled = load.instances;
  Serve(minutes(10), shared);
  EXPECT_EQ(load.instances, settled);
}

// A slow back end: no instance makes it faster.
TEST_F(LatencyScaler, DoesNotRunAwayWhenSomethingElseIsSlow) {
  load.instances = 2;
  Calls(20);
  EXPECT_EQ(Serve(hours(1), [](uint32_t) { return seconds(1); }), 4U);
  bool told = false;
  load.instances = 2;
  for (int i = 0; i < 600; ++i, load.now += seconds(2)) {
    load.latency = seconds(1);
    load.instances = Plan();
    told |= Why(decision).find("more instances did not change that") != std::string::npos;
  }
  EXPECT_TRUE(told);
}

// The budget has no room for them, or they do not start.
TEST_F(LatencyScaler, BlamesNothingElseWhereMoreNeverCame) {
  Calls(20);
  for (int i = 0; i < 300; ++i, load.now += seconds(2)) {
    load.instances = 2;
    load.latency = seconds(1);
    EXPECT_LE(Plan(), 4U);
    EXPECT_FALSE(state.latency_rest.has_value()) << "after " << 2 * i << " s";
  }
}

TEST_F(LatencyScaler, StaysAtMaxWhereItWouldNeedMore) {
  rules.max = 4;
  load.instances = 4;
  Calls(40);
  Serve(minutes(5), [](uint32_t n) { return milliseconds(4000 / std::max(n, 1U)); });
  EXPECT_EQ(load.instances, 4U);
}

TEST_F(LatencyScaler, TheHighestWishWins) {
  rules.cpu_target = 0.5;
  load.instances = 4;
  Calls(30);
  load.cpu = 1.0;
  load.latency = milliseconds(150);
  EXPECT_EQ(Plan(), 8U);
  EXPECT_EQ(decision.cause, ScaleDecision::Cause::kCpu);
  load.cpu = 0.6;
  EXPECT_EQ(Plan(), 6U);
  EXPECT_EQ(decision.cause, ScaleDecision::Cause::kLatency);
  rules.calls_per_instance = 3;
  EXPECT_EQ(Plan(), 10U);
  EXPECT_EQ(decision.cause, ScaleDecision::Cause::kCalls);
}

TEST(LatencyWindow, TellsAPercentileWithinATenth) {
  LatencyWindow window;
  for (int ms = 1; ms <= 100; ++ms) window.Add(kStart, milliseconds(ms));
  const auto near = [&](uint32_t percent) {
    return std::chrono::duration<double, std::milli>(*window.Percentile(kStart, percent)).count();
  };
  EXPECT_NEAR(near(50), 50, 5);
  EXPECT_NEAR(near(95), 95, 9.5);
  EXPECT_NEAR(near(1), 1, 0.1);
}

TEST(LatencyWindow, ForgetsAndWantsSomeCalls) {
  LatencyWindow window;
  for (int i = 0; i < 4; ++i) window.Add(kStart, milliseconds(1));
  EXPECT_EQ(window.Percentile(kStart, 95), std::nullopt);
  window.Add(kStart, milliseconds(1));
  EXPECT_TRUE(window.Percentile(kStart + seconds(19), 95).has_value());
  EXPECT_EQ(window.Percentile(kStart + seconds(31), 95), std::nullopt);
  window.Add(kStart + hours(1), hours(1000));
  EXPECT_EQ(window.Percentile(kStart + hours(1), 95), std::nullopt);
}

TEST(CpuAverage, FollowsWithinTensOfSeconds) {
  CpuAverage cpu;
  cpu.Add(kStart, hours(1));  // what was before does not count
  EXPECT_EQ(cpu.cores(), std::nullopt);
  TimePoint now = kStart;
  for (int i = 0; i < 3; ++i) cpu.Add(now += seconds(2), seconds(1));
  EXPECT_NEAR(*cpu.cores(), 0.5, 1e-9);
  cpu.Add(now += seconds(10), seconds(20));
  EXPECT_NEAR(*cpu.cores(), 1.25, 1e-9);
  cpu.Add(now, seconds(50));
  EXPECT_NEAR(*cpu.cores(), 1.25, 1e-9);
}

TEST_F(Autoscaler, NeverTakesAnInstanceFromACall) {
  load.instances = 6;
  load.under_way = 5;
  RunFor(minutes(5));
  EXPECT_EQ(load.instances, 5U);
}

// Any snapshot: within the limits, a reason, a later look in the future only.
TEST(AutoscalerProperty, HoldsForAnyLoad) {
  std::mt19937 random(3);
  ScaleState state;
  LoadSnapshot load;
  load.now = load.last_call = kStart;
  for (int round = 0; round < 50000; ++round) {
    ScaleRules rules;
    rules.min = random() % 4;
    rules.max = random() % 12;
    rules.calls_per_instance = random() % 5;
    if (random() % 2 == 0) rules.rate_target = random() % 20;
    rules.cpu_target = 0.8;
    rules.latency_target = milliseconds(1 + random() % 100);
    load.now += milliseconds(random() % 20000);
    load.instances = random() % 14;
    load.stable_calls = random() % 30 / 3.0;
    load.panic_calls = random() % 60 / 3.0;
    load.stable_rate = random() % 90 / 3.0;
    load.panic_rate = random() % 200 / 3.0;
    load.waiting = random() % 3 == 0 ? random() % 9 : 0;
    load.under_way = random() % 5;
    load.cpu = random() % 150 / 100.0;
    load.latency = milliseconds(random() % 500);
    if (load.waiting + load.under_way > 0) load.last_call = load.now;
    const ScaleDecision decision = PlanScale(load, rules, &state);
    ASSERT_LE(decision.wanted, rules.max);
    ASSERT_GE(decision.wanted, std::min(rules.min, rules.max));
    ASSERT_TRUE(decision.wanted > 0 || rules.max == 0 || load.waiting + load.under_way == 0);
    ASSERT_TRUE(!decision.look_again || *decision.look_again > load.now);
    ASSERT_GT(Why(decision).size(), 20U);
  }
}

class Resizer : public ::testing::Test {
 protected:
  Resizer() {
    use.now = kStart;
    use.limit = 64 << 20;
    use.peak = 50 << 20;
  }
  uint64_t PlanMiB() {
    decision = PlanResize(use, rules, &state);
    use.limit = decision.limit;
    return decision.limit >> 20;
  }

  ResizeRules rules = ResizeRules::Memory(32 << 20, 256 << 20);
  UseSnapshot use;
  ResizeState state;
  ResizeDecision decision;
};

TEST_F(Resizer, LeavesWhatFits) {
  EXPECT_EQ(PlanMiB(), 64U);
  EXPECT_EQ(Why(decision), "it fits");
}

TEST_F(Resizer, RaisesAtPressureAndThenWaitsToSee) {
  use.pressed = 3;
  EXPECT_EQ(PlanMiB(), 96U);
  EXPECT_EQ(Why(decision), "it was at its limit, or close to it");
  use.now += seconds(9);
  EXPECT_EQ(PlanMiB(), 96U);
  EXPECT_EQ(Why(decision), "its last change is too recent");
  use.now += seconds(1);
  EXPECT_EQ(PlanMiB(), 144U);
}

TEST_F(Resizer, DoublesAtOnceWhenSomethingWasKilled) {
  use.pressed = 1;
  PlanMiB();
  use.killed = 1;
  EXPECT_EQ(PlanMiB(), 192U);
  EXPECT_EQ(PlanMiB(), 256U);
  EXPECT_EQ(PlanMiB(), 256U);
  EXPECT_EQ(Why(decision), "more is needed, but that is the most it may have");
}

TEST_F(Resizer, LowersAfterLongSlackToThePeakAndSomeRoom) {
  use.limit = 100 << 20;
  use.peak = 48 << 20;
  EXPECT_EQ(PlanMiB(), 100U);
  use.now += minutes(10);
  use.peak = 56 << 20;
  PlanMiB();
  use.now += minutes(20);
  use.peak = 10 << 20;
  EXPECT_EQ(PlanMiB(), 70U);
  EXPECT_EQ(Why(decision), "much less was used for long");
}

TEST_F(Resizer, ASinglePeakEndsTheSlack) {
  use.peak = 1 << 20;
  PlanMiB();
  use.now += minutes(20);
  use.peak = 60 << 20;
  PlanMiB();
  use.now += minutes(20);
  use.peak = 1 << 20;
  EXPECT_EQ(PlanMiB(), 64U);
}

TEST_F(Resizer, HalvesAtMostAndStopsAtTheLeast) {
  use.limit = 200 << 20;
  use.peak = 1 << 20;
  std::vector<uint64_t> limits;
  for (int i = 0; i < 8; ++i, use.now += minutes(30)) limits.push_back(PlanMiB());
  EXPECT_EQ(limits, (std::vector<uint64_t>{200, 100, 100, 50, 50, 32, 32, 32}));
}

TEST_F(Resizer, FollowsARangeThatWasChanged) {
  rules = ResizeRules::Memory(96 << 20, 256 << 20);
  EXPECT_EQ(PlanMiB(), 96U);
  EXPECT_EQ(Why(decision), "the range it may have was changed");
}

TEST_F(Resizer, ProcessorsAreMeasuredInTensOfMillis) {
  rules = ResizeRules::Cpu(100, 2000);
  use.limit = 250;
  use.pressed = 1;
  EXPECT_EQ(PlanResize(use, rules, &state).limit, 380U);
}

// Steady use never makes it go to and fro.
TEST(ResizerProperty, SettlesUnderSteadyUse) {
  std::mt19937 random(4);
  for (int round = 0; round < 500; ++round) {
    const ResizeRules rules = ResizeRules::Memory(8 << 20, 512 << 20);
    const uint64_t need = (1 + random() % 600) * (1ULL << 20);
    ResizeState state;
    UseSnapshot use;
    use.now = kStart;
    use.limit = (8 + random() % 500) * (1ULL << 20);
    int raised = 0;
    for (int i = 0; i < 2000; ++i, use.now += minutes(1)) {
      use.pressed = need > use.limit ? 1 : 0;
      use.peak = std::min(need, use.limit);
      const ResizeDecision decision = PlanResize(use, rules, &state);
      ASSERT_GE(decision.limit, rules.least);
      ASSERT_LE(decision.limit, rules.most);
      if (i > 500 && decision.limit > use.limit) ++raised;
      use.limit = decision.limit;
    }
    ASSERT_EQ(raised, 0) << need;
    ASSERT_TRUE(use.limit >= need || use.limit == rules.most);
  }
}

}  // namespace
}  // namespace pulga
