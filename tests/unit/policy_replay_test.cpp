// Traces, and what policies would have cost on them.
#include <gtest/gtest.h>

#include "runtime/policy/replay.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

constexpr uint64_t kMiB = 1 << 20;
constexpr std::string_view kHead = "HashOwner,HashApp,HashFunction,Trigger,1,2,3,4,5,6\n";

Trace Minutes(const std::string& rows) {
  auto trace = ParseMinutes(std::string(kHead) + rows, "");
  EXPECT_TRUE(trace.ok()) << trace.error().message;
  return std::move(trace).value();
}

ReplayPolicy FixedPolicy(Duration ttl) { return StandardPolicies(0, {ttl}).front(); }

// By name, of those for a budget.
ReplayCost CostOf(const Trace& trace, const std::string& name, uint64_t budget = 0) {
  for (const ReplayPolicy& policy : StandardPolicies(budget, {minutes(10)})) {
    if (policy.name == name) return Replay(trace, policy, {});
  }
  ADD_FAILURE() << "no policy " << name;
  return {};
}

TEST(Trace, TellsCallsSizesAndTriggers) {
  const auto trace =
      ParseMinutes(std::string(kHead) + "o,a,f,timer,0,2,0,0,0,1\r\no,a,g,http,0,1,0,0,0,0\n",
                   "HashFunction,HashOwner,HashApp,SampleCount,AverageAllocatedMb\n"
                   "f,o,a,9,12.5\n");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_EQ(trace->ticks, 6U);
  EXPECT_EQ(trace->functions[0].bytes, 12 * kMiB + kMiB / 2);
  EXPECT_EQ(trace->functions[0].trigger, TraceFunction::Trigger::kTimer);
  EXPECT_EQ(trace->functions[1].bytes, 64 * kMiB);
  ASSERT_EQ(trace->calls.size(), 3U);
  EXPECT_EQ(trace->calls[0].calls, 2U);
  EXPECT_EQ(trace->calls[1].function, 1U);
  EXPECT_EQ(trace->calls[2].tick, 5U);
}

TEST(Trace, OfMomentsIsCountedBySecond) {
  const auto trace =
      ParseMoments("func_name,invoke_time_ms\na,5\nb,1500\na,999\n",
                   "func_name,cold_dur_ms,warm_dur_ms,mem_mb,mean_iat\na,500,100,30,9\n");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_EQ(trace->ticks, 2U);
  ASSERT_EQ(trace->calls.size(), 2U);
  EXPECT_EQ(trace->calls[0].calls, 2U);
  EXPECT_EQ(trace->functions[0].init, std::chrono::milliseconds(400));
  EXPECT_EQ(trace->functions[0].bytes, 30 * kMiB);
}

TEST(Trace, RefusesWhatIsNoneAndSaysWhere) {
  const std::string head(kHead);
  EXPECT_EQ(ParseMinutes(head + "o,a,f,http,1,2\n", "").error().message,
            "line 2: not as many columns as the first line has");
  EXPECT_EQ(ParseMinutes(head + "o,a,f,http,1,2,x,0,0,0\n", "").error().message,
            "line 2: column 7 is no number of calls");
  EXPECT_FALSE(ParseMinutes("", "").ok());
  EXPECT_FALSE(ParseMinutes("a,b,c,d\n", "").ok());
  EXPECT_FALSE(ParseMinutes(head, "h\nf,o,a,1,many\n").ok());
  EXPECT_FALSE(ParseMinutes(head, "h\nf,o,a,1,-5\n").ok());
  EXPECT_FALSE(ParseMinutes(head, "h\nf,o,a,1,nan\n").ok());
  EXPECT_FALSE(ParseMoments("h\na,b\n", "").ok());
  EXPECT_FALSE(ParseMoments("h\na,1,2\n", "").ok());
  EXPECT_FALSE(ParseMoments("h\na,99999999999999\n", "").ok());
  EXPECT_FALSE(ParseMoments("h\na,1\n", "h\na,b,c,d\n").ok());
}

TEST(Replay, CountsStartsByHowLongAFunctionWasKept) {
  const Trace trace = Minutes("o,a,f,http,1,1,0,1,0,0\n");
  EXPECT_EQ(Replay(trace, FixedPolicy(minutes(1)), {}).at(Rung::kCold), 2U);
  EXPECT_EQ(Replay(trace, FixedPolicy(minutes(2)), {}).at(Rung::kCold), 1U);
  EXPECT_EQ(Replay(trace, FixedPolicy(minutes(2)), {}).at(Rung::kWarm), 2U);
}

TEST(Replay, CountsTheMemoryOfIdleMinutes) {
  const Trace trace = Minutes("o,a,f,http,1,0,0,0,0,0\n");
  const ReplayCost cost = Replay(trace, FixedPolicy(minutes(3)), {});
  EXPECT_DOUBLE_EQ(cost.idle_bytes, 64.0 * kMiB * 3 / 6);
  EXPECT_EQ(cost.peak_bytes, 64 * kMiB);
}

TEST(Replay, WithinABudgetOneMakesRoomForAnother) {
  const Trace trace = Minutes("o,a,f,http,1,0,1,0,1,0\no,a,g,http,0,1,0,1,0,1\n");
  const ReplayCost cost = CostOf(trace, "greedy-dual", 100 * kMiB);
  EXPECT_EQ(cost.at(Rung::kCold), 6U);
  EXPECT_EQ(cost.peak_bytes, 64 * kMiB);
  EXPECT_EQ(CostOf(trace, "greedy-dual", 200 * kMiB).at(Rung::kCold), 2U);
  const ReplayCost ours = CostOf(trace, "ladder, zram", 100 * kMiB);
  EXPECT_EQ(ours.at(Rung::kCold), 2U);
  EXPECT_EQ(ours.at(Rung::kReclaimed), 4U);
  EXPECT_LE(ours.peak_bytes, 100 * kMiB);
}

TEST(Replay, WhatIsLargerThanTheBudgetIsAlwaysCold) {
  const Trace trace = Minutes("o,a,f,http,1,1,1,1,1,1\n");
  EXPECT_EQ(CostOf(trace, "greedy-dual", 60 * kMiB).at(Rung::kCold), 6U);
}

TEST(Replay, AKnownTimerIsMetAndNotKeptInBetween) {
  std::string row = "o,a,f,timer";
  std::string head = "HashOwner,HashApp,HashFunction,Trigger";
  for (int minute = 0; minute < 300; ++minute) {
    head += "," + std::to_string(minute);
    row += minute % 60 == 0 ? ",1" : ",0";
  }
  const auto trace = ParseMinutes(head + "\n" + row + "\n", "");
  ASSERT_TRUE(trace.ok());
  const ReplayCost known = CostOf(*trace, "ladder, zram, timers known");
  EXPECT_EQ(known.at(Rung::kFrozen), 4U);
  EXPECT_LT(known.idle_bytes, CostOf(*trace, "ladder, zram").idle_bytes);
}

TEST(Replay, IsTheSameForTheSameSeed) {
  const Trace trace = MakeTrace(7, 60);
  const ReplayPolicy policy = StandardPolicies(512 * kMiB, {}).back();
  const ReplayCost a = Replay(trace, policy, {}, 3);
  const ReplayCost b = Replay(trace, policy, {}, 3);
  EXPECT_EQ(a.starts, b.starts);
  EXPECT_EQ(a.waited, b.waited);
}

TEST(Replay, EveryTicksFirstCallIsCountedOnce) {
  const Trace trace = MakeTrace(1, 100);
  for (const uint64_t budget : {uint64_t{0}, 512 * kMiB}) {
    for (const ReplayPolicy& policy : StandardPolicies(budget, {minutes(1)})) {
      const ReplayCost cost = Replay(trace, policy, {});
      uint64_t starts = 0;
      for (const uint64_t n : cost.starts) starts += n;
      EXPECT_EQ(starts, trace.calls.size()) << policy.name;
      if (budget > 0) {
        EXPECT_LE(cost.peak_bytes, budget) << policy.name;
      }
    }
  }
}

// The lower rungs pay: on any day, not only on the one of the public trace.
TEST(Replay, TheLadderBeatsTheOthersOnMadeUpDays) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    const Trace trace = MakeTrace(seed, 100);
    const ReplayCost hybrid = CostOf(trace, "hybrid histogram");
    const ReplayCost ours = CostOf(trace, "ladder, zram");
    EXPECT_LT(ours.at(Rung::kCold), hybrid.at(Rung::kCold));
    EXPECT_LT(ours.program_starts(), hybrid.program_starts());
    EXPECT_LT(ours.waited, hybrid.waited);
    EXPECT_LT(ours.idle_bytes, 1.1 * hybrid.idle_bytes);
    EXPECT_LT(CostOf(trace, "ladder, no swap").idle_bytes, hybrid.idle_bytes);
    for (const uint64_t budget : {512 * kMiB, 1024 * kMiB}) {
      const ReplayCost greedy = CostOf(trace, "greedy-dual", budget);
      const ReplayCost within = CostOf(trace, "ladder, zram", budget);
      EXPECT_LT(within.program_starts(), greedy.program_starts());
      EXPECT_LT(within.waited, greedy.waited);
    }
  }
}

}  // namespace
}  // namespace pulga
