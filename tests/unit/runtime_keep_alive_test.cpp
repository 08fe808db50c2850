// What a function's calls teach, kept over its versions, and what the pools make of it.
#include "runtime/function_book.h"
#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

class FunctionBookTest : public ::testing::Test {
 protected:
  void CallAfter(Duration idle) {
    clock.Advance(idle);
    book.OnCallBegun(clock.Now());
    clock.Advance(milliseconds(5));
    book.OnCallEnded(clock.Now());
  }
  FakeClock clock;
  FunctionBook book{clock.Now()};
};

TEST_F(FunctionBookTest, LearnsAHabitFromThePausesBetweenCalls) {
  EXPECT_EQ(book.Habit(seconds(60)).source, Warmth::Source::kTooFew);
  for (int i = 0; i < 8; ++i) CallAfter(minutes(15));
  const Warmth warmth = book.Habit(seconds(60));
  EXPECT_EQ(warmth.source, Warmth::Source::kHabit);
  EXPECT_EQ(warmth.observations, 7U) << "nothing was before the first";
  EXPECT_EQ(warmth.from, minutes(13));
  EXPECT_EQ(warmth.until, minutes(18));
  EXPECT_EQ(book.Habit(seconds(59)).until, seconds(59)) << "minutes are too coarse for that";
}

TEST_F(FunctionBookTest, TakesNoPaceOfACallerForIdleness) {
  for (int i = 0; i < 8; ++i) {
    CallAfter(minutes(15));
    for (int burst = 0; burst < 300; ++burst) CallAfter(milliseconds(20));
  }
  EXPECT_EQ(book.habit().observations(), 7U);
  EXPECT_EQ(book.Habit(seconds(60)).from, minutes(13));
}

TEST_F(FunctionBookTest, IsIdleOnlyWhenItsLastCallHasEnded) {
  EXPECT_FALSE(book.idle_since());
  book.OnCallBegun(clock.Now());
  book.OnCallBegun(clock.Now());
  book.OnCallEnded(clock.Now());
  EXPECT_FALSE(book.idle_since());
  EXPECT_EQ(book.open_calls(), 1U);
  book.OnCallEnded(clock.Now());
  EXPECT_EQ(book.idle_since(), clock.Now());
}

TEST_F(FunctionBookTest, ForgetsHalfOfItsCallsEachHour) {
  for (int i = 0; i < 64; ++i) CallAfter(Duration::zero());
  EXPECT_NEAR(book.Frequency(clock.Now()), 64, 0.1);
  clock.Advance(hours(2));
  EXPECT_NEAR(book.Frequency(clock.Now()), 16, 0.1);
}

TEST_F(FunctionBookTest, KeepsTheLastDecisionsAndNoneTwiceInARow) {
  for (int i = 0; i < 3; ++i) book.Decided(i, "freezes");
  ASSERT_EQ(book.decisions().size(), 1U);
  EXPECT_EQ(book.decisions()[0].unix_ms, 2);
  for (int i = 0; i < 100; ++i) book.Decided(i, std::to_string(i));
  EXPECT_EQ(book.decisions().size(), FunctionBook::kDecisions);
  EXPECT_EQ(book.decisions().back().text, "99");
}

class LadderTest : public testing::CallTest {
 protected:
  const RungStatus* Cost(std::string_view rung) {
    activity = dispatcher->Activity(key);
    for (const RungStatus& cost : activity.costs) {
      if (cost.rung == rung) return &cost;
    }
    return nullptr;
  }
  FunctionActivity activity;
};

TEST_F(LadderTest, MeasuresWhatAServersStartsCostAndWhatItHolds) {
  auto version = MakeVersion(SandboxMode::kHttp);
  version->spec.scale.freeze_after = Duration::zero();
  sandbox->listen_delay = milliseconds(30);
  sandbox->memory_bytes = 7 << 20;
  ASSERT_TRUE(Activate(version).ok());
  ASSERT_NE(Cost("cold"), nullptr);
  EXPECT_EQ(Cost("cold")->starts, 0U);
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(Cost("cold")->starts, 1U);
  EXPECT_GE(Cost("cold")->cost.start, milliseconds(30));
  ASSERT_TRUE(RunUntil([&] { return sandbox->freezes == 1; }));
  EXPECT_EQ(Cost("frozen")->cost.bytes, 7U << 20);
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(Cost("frozen")->starts, 1U);
  EXPECT_EQ(Cost("parked"), nullptr) << "a server is not parked";
}

TEST_F(LadderTest, MeasuresWhatAProgramsStartsCost) {
  sandbox->memory_bytes = 300 << 10;
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  ASSERT_TRUE(RunUntil([&] { return sandbox->parks == 1; }));
  ASSERT_TRUE(RunUntil([&] { return Cost("parked")->sights > 0; }));
  EXPECT_EQ(Cost("parked")->cost.bytes, 300U << 10);
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(Cost("cold")->starts + Cost("parked")->starts, 2U);
}

TEST_F(LadderTest, WhatWasLearnedOutlivesAVersionButNotTheFunction) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_GE(Cost("cold")->starts, 1U);
  EXPECT_FALSE(activity.decisions.empty());
  bool gone = false;
  dispatcher->Deactivate(key, [&] { gone = true; });
  ASSERT_TRUE(RunUntil([&] { return gone; }));
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(Cost("cold")->starts, 0U);
}

TEST_F(LadderTest, TellsHowLongItKeepsWhatAndWhy) {
  auto version = MakeVersion(SandboxMode::kHttp);
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(dispatcher->Activity(key).keep_alive,
            "warm for 1m after a call: only 0 idle times of its own are known");
  version = MakeVersion(SandboxMode::kHttp);
  version->spec.scale.idle = seconds(7);
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(dispatcher->Activity(key).keep_alive, "warm for 7s after a call: by setting");
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  EXPECT_EQ(dispatcher->Activity(key).keep_alive, "parked for 30m after a call");
}

// Both its times are the test's.
class WallClock final : public Clock {
 public:
  TimePoint Now() const override { return now; }
  std::chrono::system_clock::time_point WallTime() const override { return wall; }
  void Advance(Duration by) {
    now += by;
    wall += std::chrono::duration_cast<std::chrono::system_clock::duration>(by);
  }
  TimePoint now = SystemClock().Now();
  std::chrono::system_clock::time_point wall{hours(100)};
};

TEST_F(LadderTest, IsReadyWhenItsScheduleSaysSo) {
  WallClock standing;
  dispatcher = Dispatcher::Create(config, *loop, standing, *sandbox, logs);
  auto version = MakeVersion(SandboxMode::kHttp);
  version->spec.annotations = {{"topic", "cron-function"}, {"schedule", "*/5 * * * *"}};
  ASSERT_TRUE(Activate(version).ok());
  standing.Advance(seconds(20));  // into an hour: this one is the schedule's
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(dispatcher->Activity(key).keep_alive,
            "warm from 4m35s to 5m10s after a call: its schedule says so");
  standing.Advance(seconds(100));
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  standing.Advance(minutes(2));
  EXPECT_EQ(dispatcher->Activity(key).keep_alive,
            "warm from 2m55s to 3m30s after a call: its schedule says so");
  standing.Advance(minutes(2));  // that one brought no call
  EXPECT_EQ(dispatcher->Activity(key).keep_alive,
            "warm from 7m55s to 8m30s after a call: its schedule says so");
  version = MakeVersion(SandboxMode::kHttp);
  version->spec.annotations = {{"topic", "cron-function"}, {"schedule", "*/5 * * * *"}};
  version->spec.scale.idle = seconds(7);
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(dispatcher->Activity(key).keep_alive, "warm for 7s after a call: by setting");
  dispatcher.reset();  // before its clock
}

// Others call it between its times: they find it as they would without a schedule.
TEST_F(LadderTest, IsKeptForOthersThoughItsScheduleIsFarOff) {
  WallClock standing;
  dispatcher = Dispatcher::Create(config, *loop, standing, *sandbox, logs);
  auto version = MakeVersion(SandboxMode::kHttp);
  version->spec.annotations = {{"topic", "cron-function"}, {"schedule", "0 3 * * *"}};
  ASSERT_TRUE(Activate(version).ok());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Call(Request())->outcome(), "ok");
    EXPECT_EQ(dispatcher->Activity(key).keep_alive,
              "warm for 1m after a call: only 0 idle times of its own are known");
    standing.Advance(milliseconds(900));
    EXPECT_EQ(Call(Request())->outcome(), "ok");
    standing.Advance(milliseconds(100));
  }
  standing.Advance(minutes(2));
  EXPECT_EQ(dispatcher->Activity(key).keep_alive.substr(0, 15), "warm from 82792")
      << "nearly 23 hours";
  dispatcher.reset();  // before its clock
}

}  // namespace
}  // namespace pulga
