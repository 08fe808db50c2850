// Who goes down the ladder so that somebody else may come up.
#include <gtest/gtest.h>

#include <random>

#include "runtime/policy/room.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kMiB = 1 << 20;
using Verdict = RoomPlan::Verdict;

Ladder LadderOf(uint64_t mib) {
  Ladder out;
  out[Rung::kCold] = {milliseconds(260), 0, true};
  out[Rung::kParked] = {milliseconds(250), kMiB / 2, true};
  out[Rung::kReclaimed] = {milliseconds(20), mib * kMiB / 4, true};
  out[Rung::kFrozen] = {milliseconds(1), mib * kMiB, true};
  out[Rung::kWarm] = {milliseconds(0), mib * kMiB, true};
  return out;
}

class Room : public ::testing::Test {
 protected:
  Room() {
    request.budget = 256 * kMiB;
    request.bytes = 64 * kMiB;
  }
  void Hold(Holder::Use use, Rung rung, double frequency = 1, double clock = 0) {
    holders.push_back({use, rung, &ladder, frequency, clock});
    request.used += ladder[rung].bytes;
  }
  RoomPlan Plan() { return PlanRoom(holders, request); }
  std::string Reason() { return Why(Plan(), request); }

  Ladder ladder = LadderOf(64);
  std::vector<Holder> holders;
  RoomRequest request;
};

TEST_F(Room, AdmitsWhatFits) {
  Hold(Holder::Use::kIdle, Rung::kFrozen);
  EXPECT_TRUE(Plan().demotions.empty());
  EXPECT_EQ(Reason(), "admitted: 64.0 MiB are free");
}

TEST_F(Room, RefusesWhatNeverFits) {
  request.bytes = 257 * kMiB;
  EXPECT_EQ(Reason(), "refused: it needs 257.0 MiB, the whole budget is 256.0 MiB");
}

TEST_F(Room, QueuesWhatCallsUnderWayKeepOut) {
  for (int i = 0; i < 4; ++i) Hold(Holder::Use::kBusy, Rung::kWarm);
  EXPECT_EQ(Reason(), "queued: it needs 64.0 MiB, and calls under way hold 256.0 MiB of 256.0 MiB");
  EXPECT_TRUE(Plan().demotions.empty());
}

TEST_F(Room, GivesUpNothingInVain) {
  for (int i = 0; i < 3; ++i) Hold(Holder::Use::kBusy, Rung::kWarm);
  Hold(Holder::Use::kIdle, Rung::kReclaimed);
  request.used += 48 * kMiB;  // of somebody not to be touched
  EXPECT_EQ(Plan().verdict, Verdict::kQueue);
  EXPECT_TRUE(Plan().demotions.empty());
}

TEST_F(Room, TakesTheCheapStepsOfManyBeforeTheDearOnesOfOne) {
  for (int i = 0; i < 4; ++i) Hold(Holder::Use::kIdle, Rung::kFrozen);
  const RoomPlan plan = Plan();
  ASSERT_EQ(plan.demotions.size(), 2U);  // two give up 48 MiB each to swap; no program is lost
  for (const Demotion& demotion : plan.demotions) EXPECT_EQ(demotion.to, Rung::kReclaimed);
  EXPECT_EQ(Why(plan, request), "admitted after 2 demotions that free 96.0 MiB");
}

TEST_F(Room, TheSeldomCalledGoFirst) {
  for (const double frequency : {9.0, 2.0, 5.0, 7.0}) {
    Hold(Holder::Use::kIdle, Rung::kFrozen, frequency);
  }
  request.bytes = 40 * kMiB;
  ASSERT_EQ(Plan().demotions.size(), 1U);
  EXPECT_EQ(Plan().demotions[0].holder, 1U);
}

TEST_F(Room, TheLongUnusedGoBeforeTheNew) {
  for (const double clock : {8.0, 9.0, 1.0, 10.0}) {
    Hold(Holder::Use::kIdle, Rung::kFrozen, 1, clock);
  }
  request.bytes = 40 * kMiB;
  request.clock = 10;
  EXPECT_EQ(Plan().demotions[0].holder, 2U);
  EXPECT_EQ(Plan().clock, 10);  // never back
}

TEST_F(Room, GoesDownSeveralRungsWhenItMust) {
  for (int i = 0; i < 4; ++i) Hold(Holder::Use::kIdle, Rung::kWarm);
  request.bytes = request.budget;
  const RoomPlan plan = Plan();
  ASSERT_EQ(plan.demotions.size(), 4U);
  for (const Demotion& demotion : plan.demotions) EXPECT_EQ(demotion.to, Rung::kCold);
  EXPECT_EQ(plan.freed, 256 * kMiB);
}

TEST_F(Room, SparesWhatALargerStepMadeNeedless) {
  Ladder large = LadderOf(200);
  for (RungCost& cost : large.rungs) cost.start *= 100;
  Hold(Holder::Use::kIdle, Rung::kFrozen);
  holders.push_back({Holder::Use::kIdle, Rung::kFrozen, &large, 1, 0});
  request.used += large[Rung::kFrozen].bytes;
  request.bytes = 140 * kMiB;
  const RoomPlan plan = Plan();  // all of the small one is not enough, and then not needed
  ASSERT_EQ(plan.demotions.size(), 1U);
  EXPECT_EQ(plan.demotions[0].holder, 1U);
  EXPECT_EQ(plan.demotions[0].to, Rung::kReclaimed);
}

TEST_F(Room, AStepOnTheWayToALowerRungIsNotSpared) {
  ladder[Rung::kReclaimed].bytes = 60 * kMiB;
  ladder[Rung::kParked].bytes = 0;
  Hold(Holder::Use::kIdle, Rung::kFrozen);
  request.used = request.budget;
  request.bytes = 58 * kMiB;
  const RoomPlan plan = Plan();
  ASSERT_EQ(plan.demotions.size(), 1U);
  EXPECT_EQ(plan.demotions[0].to, Rung::kParked);
  EXPECT_EQ(plan.freed, 64 * kMiB);
}

// Over random boards: what is admitted fits, nothing busy is touched, nothing is done twice, and
// who is queued could not have been admitted.
TEST(RoomProperty, HoldsOnRandomBoards) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<Ladder> ladders;
    for (int i = 0; i < 8; ++i) ladders.push_back(LadderOf(1 + random() % 200));
    std::vector<Holder> holders;
    RoomRequest request;
    uint64_t busy = 0;
    for (uint32_t n = random() % 12; n > 0; --n) {
      const Ladder& ladder = ladders[random() % 8];
      const auto rung = static_cast<Rung>(random() % kRungs);
      const auto use = random() % 3 == 0 ? Holder::Use::kBusy : Holder::Use::kIdle;
      holders.push_back({use, rung, &ladder, 1.0 + random() % 50, 1.0 * (random() % 9)});
      request.used += ladder[rung].bytes;
      if (use == Holder::Use::kBusy) busy += ladder[rung].bytes;
    }
    request.budget = request.used + random() % (100 * kMiB);
    request.bytes = random() % (300 * kMiB);
    const RoomPlan plan = PlanRoom(holders, request);
    uint64_t used = request.used;
    std::vector<bool> touched(holders.size(), false);
    for (const Demotion& demotion : plan.demotions) {
      const Holder& holder = holders[demotion.holder];
      ASSERT_EQ(holder.use, Holder::Use::kIdle);
      ASSERT_FALSE(touched[demotion.holder]);
      touched[demotion.holder] = true;
      used -= (*holder.ladder)[holder.rung].bytes - (*holder.ladder)[demotion.to].bytes;
    }
    ASSERT_EQ(request.used - used, plan.freed);
    switch (plan.verdict) {
      case Verdict::kAdmit:
        ASSERT_LE(used + request.bytes, request.budget);
        break;
      case Verdict::kQueue:
        ASSERT_GT(busy + request.bytes, request.budget);
        ASSERT_TRUE(plan.demotions.empty());
        break;
      case Verdict::kRefuse:
        ASSERT_GT(request.bytes, request.budget);
        break;
    }
  }
}

TEST_F(Room, EndsWhatIsWorthLeastForTheBytesItFrees) {
  Hold(Holder::Use::kIdle, Rung::kWarm, /*frequency=*/5);
  Hold(Holder::Use::kBusy, Rung::kWarm, 0);
  Hold(Holder::Use::kIdle, Rung::kReclaimed, 2);  // a quarter of the bytes
  Hold(Holder::Use::kIdle, Rung::kWarm, 1);
  Hold(Holder::Use::kIdle, Rung::kWarm, 1);
  EXPECT_EQ(WorthLeast(holders, 2), (std::vector<size_t>{4, 3})) << "of equals the later";
  EXPECT_EQ(WorthLeast(holders, 9), (std::vector<size_t>{4, 3, 0, 2}));
  EXPECT_TRUE(WorthLeast(holders, 0).empty());
}

}  // namespace
}  // namespace pulga
