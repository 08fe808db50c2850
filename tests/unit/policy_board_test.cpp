// All functions of a board at once: who rises, who falls, who waits.
#include <gtest/gtest.h>

#include <deque>

#include "runtime/policy/board_plan.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Motion = InstanceView::Motion;

constexpr uint64_t kMiB = 1 << 20;

class Board : public ::testing::Test {
 protected:
  struct Function {
    Ladder ladder;
    ScaleState state;
    std::vector<InstanceView> instances;
    FunctionView view;
  };

  Board() {
    board.now = TimePoint(hours(1));
    board.budget = 256 * kMiB;
  }
  Function& Add(uint64_t mib) {
    Function& out = functions.emplace_back();
    out.ladder[Rung::kCold] = {milliseconds(300), 0, true};
    out.ladder[Rung::kParked] = {milliseconds(250), kMiB / 2, true};
    out.ladder[Rung::kReclaimed] = {milliseconds(30), mib * kMiB / 4, true};
    out.ladder[Rung::kFrozen] = {milliseconds(1), mib * kMiB, true};
    out.ladder[Rung::kWarm] = {Duration::zero(), mib * kMiB, true};
    out.view.warmth.until = minutes(10);
    out.view.load.last_call = board.now;
    return out;
  }
  InstanceView& Hold(Function& function, Rung rung, Duration idle_for = Duration::zero()) {
    InstanceView instance;
    instance.rung = rung;
    instance.bytes = function.ladder[rung].bytes;
    instance.idle_since = board.now - idle_for;
    function.instances.push_back(instance);
    return function.instances.back();
  }
  void Busy(Function& function) {
    Hold(function, Rung::kWarm).calls = 1;
    ++function.view.load.under_way;
    function.view.load.stable_calls += 1;
  }
  void Wait(Function& function, Duration since) {
    ++function.view.load.waiting;
    function.view.oldest_waiting = board.now - since;
  }
  // "f0 starts an instance: ...; f1 ...".
  std::string Plan() {
    std::vector<FunctionView> views;
    for (Function& function : functions) {
      views.push_back(function.view);
      views.back().ladder = &function.ladder;
      views.back().state = &function.state;
      views.back().instances = function.instances;
    }
    board.functions = views;
    plan = PlanBoard(board);
    std::string text;
    for (const BoardAction& action : plan.actions) {
      text += (text.empty() ? "f" : "; f") + std::to_string(action.function) + " " + Why(action);
    }
    return text;
  }

  std::deque<Function> functions;
  BoardView board;
  BoardPlan plan;
};

TEST_F(Board, StartsForACallThatWaits) {
  Wait(Add(64), seconds(0));
  EXPECT_EQ(Plan(), "f0 starts an instance: calls wait for it");
}

TEST_F(Board, TakesTheReadiestOfWhatIsThere) {
  Function& f = Add(64);
  f.view.scale.max = 2;
  Hold(f, Rung::kParked);
  Hold(f, Rung::kFrozen);
  Wait(f, seconds(0));
  EXPECT_EQ(Plan(), "f0 raises an instance to warm: calls wait for it");
  EXPECT_EQ(plan.actions[0].instance, 1U);
}

TEST_F(Board, NeverHasMoreThanMax) {
  Function& f = Add(8);
  f.view.scale.max = 2;
  Busy(f);
  Hold(f, Rung::kWarm).motion = Motion::kRising;
  Wait(f, seconds(9));
  EXPECT_EQ(Plan(), "");
}

TEST_F(Board, MakesRoomFirstAndStartsWhenItIsThere) {
  Function& idle = Add(200);
  Hold(idle, Rung::kFrozen, seconds(5));
  Wait(Add(100), seconds(0));
  EXPECT_EQ(Plan(), "f0 lowers an instance to reclaimed: another function needs the memory");
  idle.instances[0].motion = Motion::kFalling;
  idle.instances[0].rung = Rung::kReclaimed;
  EXPECT_EQ(Plan(), "");  // it is on its way: nothing else is given up for it
  idle.instances[0].motion = Motion::kNone;
  idle.instances[0].bytes = 50 * kMiB;
  EXPECT_EQ(Plan(), "f1 starts an instance: calls wait for it");
}

TEST_F(Board, WhatIsOnItsWayIsPromisedToTheOldest) {
  Function& idle = Add(200);
  Hold(idle, Rung::kCold).motion = Motion::kFalling;
  idle.instances[0].bytes = 200 * kMiB;
  Wait(Add(200), seconds(2));
  Wait(Add(50), seconds(1));
  EXPECT_EQ(Plan(), "");
  Wait(functions[2], seconds(3));  // the small one is older now, and fits at once
  EXPECT_EQ(Plan(), "f2 starts an instance: calls wait for it");
}

TEST_F(Board, TakesNothingFromWhoHasWaitedLonger) {
  Function& older = Add(200);
  Hold(older, Rung::kReclaimed, seconds(5));
  Hold(older, Rung::kReclaimed, seconds(6));
  Wait(older, seconds(3));
  Busy(Add(200));
  functions[1].view.scale.max = 1;
  Wait(Add(30), milliseconds(10));
  board.patience = seconds(60);
  board.budget = 300 * kMiB;
  EXPECT_EQ(Plan(), "");
}

TEST_F(Board, TakesNothingThatScaleMinKeeps) {
  Function& kept = Add(200);
  kept.view.scale.min = 1;
  Hold(kept, Rung::kFrozen, seconds(5));
  Wait(Add(100), milliseconds(10));
  EXPECT_EQ(Plan(), "");
}

TEST_F(Board, RefusesWhatNeverFits) {
  Wait(Add(257), seconds(0));
  EXPECT_EQ(Plan(), "f0 refuses the calls that wait: the function is larger than the whole budget");
}

TEST_F(Board, RefusesWhatDoesNotFitBesideTheMinimaButNotAtOnce) {
  Function& kept = Add(100);
  kept.view.scale.min = 1;
  Hold(kept, Rung::kFrozen, seconds(5));
  Wait(Add(200), milliseconds(10));
  EXPECT_EQ(Plan(), "");
  Wait(functions[1], seconds(1));
  EXPECT_EQ(Plan(),
            "f1 refuses the calls that wait: the function does not fit beside what scale.min keeps "
            "for others");
}

TEST_F(Board, WhoStarvesGetsAnInstanceThatIsNeverIdle) {
  for (const double frequency : {9.0, 2.0, 5.0}) {
    Busy(Add(80));
    functions.back().view.frequency = frequency;
  }
  Wait(Add(80), milliseconds(999));
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(plan.look_again, board.now + milliseconds(1));
  Wait(functions[3], seconds(1));
  EXPECT_EQ(Plan(),
            "f1 gives an instance no new calls: another function's call has waited too long for "
            "memory");
  functions[1].instances[0].door = InstanceView::Door::kClosed;
  EXPECT_EQ(Plan(), "");  // one is enough
  functions[1].instances[0].calls = functions[1].view.load.under_way = 0;
  EXPECT_EQ(Plan(), "f1 ends an instance: another function's call has waited too long for memory");
}

TEST_F(Board, ClosesNoMoreThanIdleOnesDoNotCover) {
  Hold(Add(100), Rung::kFrozen, seconds(5));
  Busy(Add(78));
  Busy(Add(78));
  Wait(Add(170), seconds(2));
  Plan();
  ASSERT_EQ(plan.actions.size(), 1U);
  EXPECT_EQ(plan.actions[0].kind, BoardAction::Kind::kClose);
}

TEST_F(Board, ClosesNoneThatScaleMinKeeps) {
  Busy(Add(20));
  functions[0].view.scale.min = 1;
  functions[0].view.frequency = 0.1;
  Busy(Add(200));
  Wait(Add(100), seconds(2));
  Plan();
  ASSERT_EQ(plan.actions.size(), 1U);
  EXPECT_EQ(plan.actions[0].function, 1U);
}

TEST_F(Board, NobodyYoungerGetsMemoryWhileSomebodyStarves) {
  Busy(Add(200));
  functions[0].instances[0].door = InstanceView::Door::kClosed;
  Wait(Add(200), seconds(2));
  Wait(Add(20), seconds(1));
  EXPECT_EQ(Plan(), "");
}

TEST_F(Board, WhoHasOneInstanceDoesNotStarveForASecond) {
  Function& f = Add(100);
  Busy(f);
  Wait(f, seconds(5));
  Busy(Add(100));
  EXPECT_EQ(Plan(), "");
}

TEST_F(Board, StartsWhatScaleMinAsksForAndMakesRoomForIt) {
  Function& f = Add(60);
  f.view.scale.min = 2;
  EXPECT_EQ(Plan(), "f0 starts an instance: scale.min; f0 starts an instance: scale.min");
  Hold(Add(220), Rung::kFrozen, seconds(5));
  EXPECT_EQ(Plan(), "f1 lowers an instance to reclaimed: another function needs the memory");
}

TEST_F(Board, LowersStepByStepWhatIsIdle) {
  Function& f = Add(60);
  Hold(f, Rung::kWarm, seconds(1));
  EXPECT_EQ(Plan(), "f0 lowers an instance to frozen: it has been idle");
  f.instances[0].rung = Rung::kFrozen;
  EXPECT_EQ(Plan(), "");
  f.instances[0].idle_since = board.now - minutes(10);
  EXPECT_EQ(Plan(), "f0 lowers an instance to reclaimed: it has been idle");
}

TEST_F(Board, RaisesBeforeACallThatIsExpectedIfMemoryIsFree) {
  Function& f = Add(60);
  f.view.warmth.from = minutes(15);
  f.view.warmth.until = minutes(20);
  Hold(f, Rung::kParked, minutes(14));
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(plan.look_again, board.now + minutes(1));
  f.instances[0].idle_since -= minutes(1);
  EXPECT_EQ(Plan(), "f0 raises an instance to frozen: a call is expected");
  Busy(Add(220));
  EXPECT_EQ(Plan(), "");
}

TEST_F(Board, ARetiredVersionEndsAsSoonAsItIsIdle) {
  Function& f = Add(60);
  f.view.scale.max = 0;
  Busy(f);
  Hold(f, Rung::kFrozen);
  EXPECT_EQ(Plan(), "f0 ends an instance: its version is being retired");
  EXPECT_EQ(plan.actions[0].instance, 1U);
}

TEST_F(Board, SurplusEndsLongestIdleFirst) {
  Function& f = Add(20);
  f.view.scale.max = 4;
  f.view.load.last_call = board.now - minutes(2);
  for (const int idle : {40, 90, 60}) Hold(f, Rung::kFrozen, seconds(idle));
  EXPECT_EQ(Plan(), "");
  board.now += seconds(30);
  EXPECT_EQ(Plan(),
            "f0 ends an instance: fewer have been enough for a while; "
            "f0 ends an instance: fewer have been enough for a while");
  EXPECT_EQ(plan.actions[0].instance, 2U);
  EXPECT_EQ(plan.actions[1].instance, 1U);
}

TEST_F(Board, WhoHasACallIsNotSurplus) {
  Function& f = Add(20);
  f.view.scale.max = 4;
  Busy(f);
  f.instances[0].idle_since = board.now - hours(1);
  Hold(f, Rung::kFrozen, seconds(5));
  Plan();
  board.now += seconds(30);
  EXPECT_EQ(Plan(), "f0 ends an instance: fewer have been enough for a while");
  EXPECT_EQ(plan.actions[0].instance, 1U);
}

}  // namespace
}  // namespace pulga
