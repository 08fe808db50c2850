// What a function's habits say about keeping it warm.
#include <gtest/gtest.h>

#include "runtime/policy/descent.h"
#include "runtime/policy/idle_histogram.h"
#include "runtime/policy/keep_alive.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

IdleHistogram Habit(Duration idle, int times) {
  IdleHistogram out;
  for (int i = 0; i < times; ++i) out.Add(idle);
  return out;
}

TEST(IdleHistogram, CountsByTheMinuteAndBeyondFourHours) {
  IdleHistogram habit;
  for (const Duration idle : {Duration(minutes(0)), Duration(seconds(59)), Duration(minutes(1)),
                              Duration(minutes(239)), Duration(hours(4)), Duration(hours(90))}) {
    habit.Add(idle);
  }
  EXPECT_EQ(habit.Serialise(), "2;0*2,1*1,239*1");
  EXPECT_EQ(habit.inside(), 4U);
  EXPECT_EQ(habit.beyond(), 2U);
}

TEST(IdleHistogram, ATimeBeforeZeroIsNone) { EXPECT_EQ(Habit(-hours(1), 1).Serialise(), "0;0*1"); }

TEST(IdleHistogram, StaysBoundedWhateverComes) {
  IdleHistogram habit;
  for (int i = 0; i < 100000; ++i) {
    habit.Add(minutes(i * 7 % 300));
    ASSERT_LE(habit.observations(), 255U);
  }
  EXPECT_LE(sizeof(habit), 242U);
  EXPECT_LE(habit.Serialise().size(), 2048U);
}

TEST(IdleHistogram, OldHabitsFade) {
  IdleHistogram habit = Habit(minutes(60), 250);
  for (int i = 0; i < 700; ++i) habit.Add(minutes(5));
  EXPECT_EQ(habit.Percentile(5), 5U);
  for (int i = 0; i < 700; ++i) habit.Add(minutes(5));
  EXPECT_EQ(habit.Percentile(99), 5U);
}

TEST(IdleHistogram, PercentilesAreThoseOfTheSortedList) {
  IdleHistogram habit;
  for (int i = 1; i <= 100; ++i) habit.Add(minutes(i));
  EXPECT_EQ(habit.Percentile(5), 5U);
  EXPECT_EQ(habit.Percentile(50), 50U);
  EXPECT_EQ(habit.Percentile(99), 99U);
  EXPECT_EQ(IdleHistogram().Percentile(99), 0U);
}

TEST(IdleHistogram, OneSharpHabitIsConcentratedAndEvenSpreadIsNot) {
  EXPECT_TRUE(Habit(minutes(15), 10).Concentrated(2));
  IdleHistogram even;
  for (int i = 0; i < 240; ++i) even.Add(minutes(i));
  EXPECT_FALSE(even.Concentrated(2));
  EXPECT_FALSE(IdleHistogram().Concentrated(2));
}

TEST(IdleHistogram, ComesBackFromItsText) {
  IdleHistogram habit = Habit(minutes(3), 200);
  for (int i = 0; i < 400; ++i) habit.Add(minutes(i));
  const auto back = IdleHistogram::Parse(habit.Serialise());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(*back, habit);
  EXPECT_EQ(*IdleHistogram::Parse("0;"), IdleHistogram());
}

TEST(IdleHistogram, RefusesTextThatIsNone) {
  for (const char* text :
       {"", "0", ";", "0;0", "0;0*", "0;*1", "0;240*1", "0;1*0", "0;1*1,1*1", "0;1*256", "256;",
        "0;1*200,2*100", "200;1*100", "-1;", "0;1*1,", "0;1*1;", "a;1*1", "0; 1*1"}) {
    EXPECT_FALSE(IdleHistogram::Parse(text).ok()) << text;
  }
}

TEST(KeepAlive, IsFixedUntilEnoughIsKnown) {
  const KeepAliveRules rules;
  const Warmth warmth = PlanWarmth(Habit(minutes(15), 4), rules);
  EXPECT_EQ(warmth.until, minutes(10));
  EXPECT_EQ(Why(warmth), "warm for 10m after a call: only 4 idle times of its own are known");
}

TEST(KeepAlive, FollowsASharpHabitWithMargins) {
  const Warmth warmth = PlanWarmth(Habit(minutes(20), 40), {});
  EXPECT_EQ(warmth.source, Warmth::Source::kHabit);
  EXPECT_EQ(warmth.from, minutes(18));   // 20 less a tenth
  EXPECT_EQ(warmth.until, minutes(24));  // 21, where the bin ends, and a tenth, in whole minutes
  EXPECT_EQ(Why(warmth), "warm from 18m to 24m after a call: 40 idle times of its own say so");
}

TEST(KeepAlive, IgnoresTheRarestOnBothSides) {
  IdleHistogram habit = Habit(minutes(20), 198);
  habit.Add(minutes(1));
  habit.Add(minutes(200));
  EXPECT_EQ(PlanWarmth(habit, {}).until, minutes(24));
  EXPECT_EQ(PlanWarmth(habit, {}).from, minutes(18));
}

TEST(KeepAlive, IsFixedWhereThereIsNoHabit) {
  IdleHistogram even;
  for (int i = 0; i < 240; ++i) even.Add(minutes(i));
  EXPECT_EQ(PlanWarmth(even, {}).source, Warmth::Source::kScattered);
  EXPECT_EQ(PlanWarmth(even, {}).until, minutes(10));
}

TEST(KeepAlive, IsFixedWhereMostIdleTimesAreTooLong) {
  IdleHistogram habit = Habit(hours(5), 6);
  for (int i = 0; i < 5; ++i) habit.Add(minutes(3));
  EXPECT_EQ(PlanWarmth(habit, {}).source, Warmth::Source::kTooLong);
}

TEST(KeepAlive, IsFixedWhereLearningIsOff) {
  KeepAliveRules rules;
  rules.learning = KeepAliveRules::Learning::kOff;
  EXPECT_EQ(Why(PlanWarmth(Habit(minutes(20), 40), rules)),
            "warm for 10m after a call: by setting");
}

TEST(KeepAlive, AScheduleIsMetJustBeforeAndLeftJustAfter) {
  const Warmth warmth = PlanWarmth(Habit(minutes(1), 40), {}, hours(1));
  EXPECT_EQ(warmth.from, minutes(60) - seconds(5));
  EXPECT_EQ(warmth.until, minutes(60) + seconds(30));
  EXPECT_EQ(Why(warmth), "warm from 59m55s to 1h30s after a call: its schedule says so");
  EXPECT_EQ(PlanWarmth({}, {}, seconds(2)).from, Duration::zero());
}

class Descent : public ::testing::Test {
 protected:
  Descent() {
    for (RungCost& cost : ladder.rungs) cost.offered = true;
    warmth.from = minutes(18);
    warmth.until = minutes(24);
  }
  std::string At(Duration idle) { return Why(StageAt(idle, warmth, {}, ladder)); }

  Ladder ladder;
  Warmth warmth;
};

TEST_F(Descent, GoesDownWhileNoCallIsExpectedAndUpBeforeOne) {
  EXPECT_EQ(At(Duration::zero()), "warm until 1s of idleness: it was just used");
  EXPECT_EQ(At(seconds(1)), "reclaimed until 18m of idleness: no call is expected before");
  EXPECT_EQ(At(minutes(18)), "frozen until 24m of idleness: a call is expected");
  EXPECT_EQ(At(minutes(24)),
            "reclaimed until 2h of idleness: the call that was expected did not come");
  EXPECT_EQ(At(hours(2)), "parked until 168h of idleness: the call that was expected did not come");
  EXPECT_EQ(At(hours(168)), "cold: it is out of use");
}

TEST_F(Descent, TakesTheNextRungWhereOneIsMissing) {
  ladder[Rung::kReclaimed].offered = false;
  EXPECT_EQ(StageAt(seconds(1), warmth, {}, ladder).rung, Rung::kParked);
  ladder[Rung::kParked].offered = false;
  EXPECT_EQ(At(seconds(1)), "cold until 18m of idleness: no call is expected before");
  ladder[Rung::kFrozen].offered = false;
  EXPECT_EQ(At(Duration::zero()), "cold until 18m of idleness: no call is expected before");
  EXPECT_EQ(At(minutes(20)), "warm until 24m of idleness: a call is expected");
}

TEST_F(Descent, EveryStageEndsLaterThanItBegan) {
  for (const Duration from : {minutes(0), minutes(1), minutes(300)}) {
    for (uint32_t offered = 0; offered < 32; ++offered) {
      for (size_t i = 1; i < kRungs; ++i) ladder.rungs[i].offered = (offered >> i & 1) != 0;
      warmth.from = from;
      warmth.until = from + minutes(7);
      std::optional<Duration> idle = Duration::zero();
      for (int stages = 0; idle; ++stages) {
        ASSERT_LT(stages, 10);
        const Stage stage = StageAt(*idle, warmth, {}, ladder);
        ASSERT_TRUE(!stage.until || *stage.until > *idle);
        idle = stage.until;
      }
    }
  }
}

}  // namespace
}  // namespace pulga
