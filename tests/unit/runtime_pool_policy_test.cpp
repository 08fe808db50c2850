// The pool's decisions, and a seeded simulation of them with a clock of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/clock.h"
#include "runtime/memory_budget.h"
#include "runtime/pool_policy.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolPolicy : public ::testing::Test {
 protected:
  PoolPolicy() {
    pool.now = pool.last_used = TimePoint(std::chrono::hours(1));
    pool.spawner = SpawnerStep::kReady;
    pool.warmth.until = seconds(60);
    pool.descent.parked_for = seconds(60);
    pool.ladder[Rung::kParked].offered = pool.ladder[Rung::kWarm].offered = true;
  }
  void Freezes(Duration after) {
    pool.ladder[Rung::kFrozen].offered = true;
    pool.descent.freeze_after = after;
  }
  // Calls come 13 to 18 minutes after the last one.
  void Habit() {
    pool.warmth = {std::chrono::minutes(13), std::chrono::minutes(18), Warmth::Source::kHabit, 40};
    pool.unused_since = pool.last_used;
  }
  void Http() {
    pool.ladder[Rung::kParked].offered = false;
    pool.mode = SandboxMode::kHttp;
    pool.concurrency = 10;
    pool.slots = pool.max;
  }
  void Add(InstanceStep step, Duration idle_for = Duration::zero(), uint32_t calls = 0) {
    const auto slot = static_cast<uint16_t>(pool.instances.size());
    pool.instances.push_back({slot, step, calls, pool.now - idle_for});
  }
  // "park 2, stop 0" with the reasons in `reasons`.
  std::string Plan() {
    static const char* kNames[] = {"build", "drop", "start-for-call", "start",
                                   "park",  "stop", "freeze",         "reclaim"};
    const PoolPlan plan = PlanPool(pool);
    std::string text;
    reasons.clear();
    for (const PoolAction& action : plan.actions) {
      text += (text.empty() ? "" : ", ") + std::string(kNames[static_cast<int>(action.kind)]) +
              " " + std::to_string(action.slot);
      reasons += action.reason + "\n";
    }
    look_again = plan.look_again;
    return text;
  }
  PoolSnapshot pool;
  std::string reasons;
  std::optional<TimePoint> look_again;
};

TEST_F(PoolPolicy, BuildsTheSpawnerWhenSomebodyWaits) {
  pool.spawner = SpawnerStep::kNone;
  EXPECT_EQ(Plan(), "");
  pool.waiting = 2;
  EXPECT_EQ(Plan(), "build 0");
  EXPECT_EQ(reasons, "builds the spawner: 2 calls waiting\n");
}

TEST_F(PoolPolicy, BuildsTheSpawnerForTheMinimum) {
  pool.spawner = SpawnerStep::kNone;
  pool.min = 1;
  EXPECT_EQ(Plan(), "build 0");
  EXPECT_EQ(reasons, "builds the spawner: scale.min is 1\n");
}

TEST_F(PoolPolicy, DoesNothingWithoutALauncher) {
  pool.launcher = PoolSnapshot::Launcher::kDown;
  pool.waiting = 5;
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, StartsExecInstancesUpToTheMaximum) {
  pool.waiting = 10;
  pool.max = 3;
  Add(InstanceStep::kRunning);
  EXPECT_EQ(Plan(), "start-for-call 1, start-for-call 2");
}

TEST_F(PoolPolicy, CountsEndingInstancesAgainstTheMaximum) {
  pool.waiting = 1;
  pool.max = 1;
  Add(InstanceStep::kEnding);
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, LetsACallWaitForWhatIsBeingParked) {
  pool.waiting = 1;
  Add(InstanceStep::kParking);
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, ParksWhileTheFunctionIsInUse) {
  pool.parked = 2;
  EXPECT_EQ(Plan(), "park 0, park 1");
  pool.refill = PoolSnapshot::Refill::kLater;
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, StopsParkedInstancesOfAFunctionOutOfUse) {
  Add(InstanceStep::kParked);
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.last_used + seconds(60));
  pool.now += seconds(60);
  EXPECT_EQ(Plan(), "stop 0");
  EXPECT_EQ(reasons, "stops an instance: idle for 1m\n");
}

TEST_F(PoolPolicy, FreezesAServerThatWasIdleForLongEnough) {
  Http();
  Freezes(seconds(1));
  Add(InstanceStep::kWarm, seconds(1));
  Add(InstanceStep::kWarm, milliseconds(400));
  Add(InstanceStep::kWarm, seconds(9), 1);  // has a call
  Add(InstanceStep::kFrozen, seconds(9));
  Add(InstanceStep::kStarting, seconds(9));
  EXPECT_EQ(Plan(), "freeze 0");
  EXPECT_EQ(reasons, "freezes an instance: idle for 1s\n");
  EXPECT_EQ(look_again, pool.now + milliseconds(600));
}

TEST_F(PoolPolicy, FreezesNothingWhenToldNeverOrWhileSomebodyWaits) {
  Http();
  Add(InstanceStep::kWarm, seconds(9));
  EXPECT_EQ(Plan(), "");
  Freezes(Duration::zero());
  EXPECT_EQ(Plan(), "freeze 0");
  pool.max = pool.waiting = 1;
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, FreezesNothingThatStillProvesItselfOrIsToGo) {
  Http();
  Freezes(seconds(1));
  Add(InstanceStep::kWarm, seconds(9));
  pool.phase = PoolPhase::kProving;
  EXPECT_EQ(Plan(), "");
  EXPECT_TRUE(look_again.has_value());
  pool.phase = PoolPhase::kDraining;
  EXPECT_EQ(Plan(), "stop 0");
}

TEST_F(PoolPolicy, StopsFrozenInstancesAsItDoesWarmOnes) {
  Http();
  Freezes(seconds(1));
  Add(InstanceStep::kFrozen, seconds(61));
  Add(InstanceStep::kFrozen, seconds(30));
  EXPECT_EQ(Plan(), "stop 0");
  pool.min = 2;
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, StartsNoInstanceWhereAFrozenOneCounts) {
  Http();
  pool.max = 1;
  pool.waiting = 1;
  Freezes(seconds(1));
  Add(InstanceStep::kFrozen, seconds(30));
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, StopsAServerBeforeItsHabitAndBringsOneUpInTime) {
  Http();
  Habit();
  Freezes(seconds(1));
  Add(InstanceStep::kWarm, milliseconds(900));
  EXPECT_EQ(Plan(), "") << "it was just used";
  pool.now += seconds(1);
  EXPECT_EQ(Plan(), "stop 0");
  EXPECT_EQ(reasons, "stops an instance: no call is expected before 13m without one\n");
  pool.instances.clear();
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, *pool.unused_since + std::chrono::minutes(13));
  pool.now = *pool.unused_since + std::chrono::minutes(13);
  EXPECT_EQ(Plan(), "start 0");
  EXPECT_EQ(reasons,
            "starts an instance: a call is expected; warm from 13m to 18m after a call: 40 idle "
            "times of its own say so\n");
}

TEST_F(PoolPolicy, FreezesWhatItBroughtUpAndStopsItWhenNoCallCame) {
  Http();
  Habit();
  Freezes(seconds(1));
  pool.now += std::chrono::minutes(14);
  Add(InstanceStep::kWarm, std::chrono::minutes(14));  // idle as the function is
  EXPECT_EQ(Plan(), "freeze 0");
  pool.instances[0].step = InstanceStep::kFrozen;
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, *pool.unused_since + std::chrono::minutes(18));
  pool.now += std::chrono::minutes(4);
  EXPECT_EQ(Plan(), "stop 0");
  pool.instances.clear();
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, BuildsTheSpawnerForACallThatIsExpected) {
  Http();
  Habit();
  pool.spawner = SpawnerStep::kNone;
  EXPECT_EQ(Plan(), "");
  pool.now += std::chrono::minutes(13);
  EXPECT_EQ(Plan(), "build 0");
  EXPECT_EQ(reasons, "builds the spawner: a call is expected\n");
  pool.unused_since.reset();  // another version of it has a call
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, EndsNoServerBetweenTwoCallsWhereNothingCanBeFrozen) {
  Http();
  Habit();
  Add(InstanceStep::kWarm, milliseconds(400));
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.now + milliseconds(600));
}

TEST_F(PoolPolicy, PushesOutThePagesOfWhatNobodyIsExpectedToCall) {
  Http();
  Freezes(seconds(1));
  pool.ladder[Rung::kReclaimed].offered = true;
  Add(InstanceStep::kFrozen, seconds(59));
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.now + seconds(1));
  pool.now += seconds(1);
  EXPECT_EQ(Plan(), "reclaim 0");
  EXPECT_EQ(reasons, "pushes an instance's pages out: idle for 1m\n");
  pool.instances[0].pages = InstanceSnapshot::Pages::kAsked;
  EXPECT_EQ(Plan(), "");
  pool.instances[0].step = InstanceStep::kReclaimed;
  pool.now += std::chrono::hours(2);
  EXPECT_EQ(Plan(), "stop 0");
}

TEST_F(PoolPolicy, StartsWhatTheLoadAsksForWhileCallsCome) {
  Http();
  pool.max = 3;
  pool.slots = 4;
  pool.scale = ScaleDecision{};
  pool.scale->wanted = 5;
  pool.scale->before = 1;
  pool.scale->cause = ScaleDecision::Cause::kCalls;
  Add(InstanceStep::kWarm, seconds(0), 6);
  EXPECT_EQ(Plan(), "start 1, start 2") << "max is exact";
  EXPECT_NE(reasons.find("starts an instance: from 1 to 5 instances: so many calls are under way"),
            std::string::npos);
  pool.instances[0].open_calls = 0;
  EXPECT_EQ(Plan(), "") << "nobody calls any more";
}

TEST_F(PoolPolicy, StopsWhatTheLoadNoLongerNeedsButNeverTheLastOne) {
  Http();
  pool.scale = ScaleDecision{};
  pool.scale->wanted = 0;
  pool.scale->before = 3;
  pool.scale->cause = ScaleDecision::Cause::kLessLoad;
  Add(InstanceStep::kWarm, seconds(40));
  Add(InstanceStep::kWarm, seconds(50));
  Add(InstanceStep::kWarm, seconds(30), 2);
  EXPECT_EQ(Plan(), "stop 1, stop 0");
  EXPECT_EQ(reasons.substr(0, reasons.find('\n')),
            "stops an instance: from 3 to 0 instances: fewer have been enough for a while");
  pool.instances.resize(1);
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, KeepsASandboxParkedForLongerThanAServerIsKept) {
  pool.descent.parked_for = std::chrono::minutes(30);
  Add(InstanceStep::kParked);
  pool.now += std::chrono::minutes(29);
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.last_used + std::chrono::minutes(30));
  pool.now += std::chrono::minutes(1);
  EXPECT_EQ(Plan(), "stop 0");
  EXPECT_EQ(reasons, "stops an instance: idle for 30m\n");
}

TEST_F(PoolPolicy, LooksAgainThoughWhatItParksMayFail) {
  EXPECT_EQ(Plan(), "park 0");
  EXPECT_EQ(look_again, pool.last_used + seconds(60));
}

TEST_F(PoolPolicy, KeepsNothingOfWhatNobodyCallsButTheSpawnerForAWhile) {
  pool.use = PoolSnapshot::Use::kNone;
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.last_used + seconds(60));
  Add(InstanceStep::kParked);
  EXPECT_EQ(Plan(), "stop 0");
  EXPECT_EQ(reasons, "stops an instance: none is wanted\n");
  pool.instances.clear();
  pool.now += seconds(60);
  EXPECT_EQ(Plan(), "drop 0");
}

TEST_F(PoolPolicy, KeepsTheMinimumForEver) {
  pool.min = 2;
  Add(InstanceStep::kParked);
  Add(InstanceStep::kParked);
  pool.now += seconds(10000);
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, StartsServersByTheirConcurrency) {
  Http();
  pool.waiting = 11;
  EXPECT_EQ(Plan(), "start 0, start 1");
  Add(InstanceStep::kStarting);
  EXPECT_EQ(Plan(), "start 1");
  Add(InstanceStep::kStarting);
  EXPECT_EQ(Plan(), "");
}

TEST_F(PoolPolicy, LetsNoCallWaitForTheGraceOfAStoppedServer) {
  Http();
  pool.max = 2;
  pool.slots = 3;
  Add(InstanceStep::kEnding);
  Add(InstanceStep::kEnding, Duration::zero(), 1);  // it still answers somebody
  Add(InstanceStep::kEnding);
  EXPECT_EQ(Plan(), "");  // nobody waits: each has its grace
  pool.waiting = 1;
  EXPECT_EQ(Plan(), "stop 0");
  EXPECT_EQ(reasons, "ends an instance at once: a call needs its slot\n");
  pool.waiting = 11;
  EXPECT_EQ(Plan(), "stop 0, stop 2");
}

TEST_F(PoolPolicy, RetiresLongestIdleFirst) {
  Http();
  pool.min = 1;
  Add(InstanceStep::kWarm, seconds(61));
  Add(InstanceStep::kWarm, seconds(90));
  Add(InstanceStep::kWarm, seconds(500), 1);
  EXPECT_EQ(Plan(), "stop 1, stop 0");
}

TEST_F(PoolPolicy, SaysWhenToLookAgain) {
  Http();
  Add(InstanceStep::kWarm, seconds(20));
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.now + seconds(40));
}

TEST_F(PoolPolicy, StopsNothingWhileCallsWait) {
  Http();
  pool.waiting = 1;
  Add(InstanceStep::kWarm, seconds(90));
  EXPECT_EQ(Plan().find("stop"), std::string::npos);
}

TEST_F(PoolPolicy, StartsNothingDuringABackOff) {
  pool.waiting = 3;
  pool.retry_at = pool.now + milliseconds(200);
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.retry_at);
}

TEST_F(PoolPolicy, LooksAgainAfterABackOffThoughNobodyWaits) {
  pool.retry_at = pool.now + milliseconds(200);
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.retry_at);
}

TEST_F(PoolPolicy, DropsTheSpawnerAfterTwiceTheIdleTime) {
  pool.parked = 0;
  pool.now += seconds(119);
  EXPECT_EQ(Plan(), "");
  pool.now += seconds(1);
  EXPECT_EQ(Plan(), "drop 0");
  EXPECT_EQ(reasons, "drops the spawner: unused for 2m\n");
}

TEST_F(PoolPolicy, DropsTheSpawnerOfAScheduleThatIsFarOff) {
  pool.parked = 0;
  pool.warmth = {hours(700), hours(700) + seconds(35), Warmth::Source::kSchedule, 0};
  pool.now += hours(2) - seconds(1);
  EXPECT_EQ(Plan(), "");
  EXPECT_EQ(look_again, pool.now + seconds(1));
  pool.now += seconds(1);
  EXPECT_EQ(Plan(), "drop 0");
}

TEST_F(PoolPolicy, EmptiesADrainingPoolAtOnceButServesItsQueue) {
  pool.phase = PoolPhase::kDraining;
  pool.min = 3;
  Add(InstanceStep::kParked);
  EXPECT_EQ(Plan(), "stop 0");
  pool.waiting = 2;
  EXPECT_EQ(Plan(), "start-for-call 1");
  pool.waiting = 0;
  pool.instances.clear();
  EXPECT_EQ(Plan(), "drop 0");
}

TEST_F(PoolPolicy, ProvesANewVersionWithOneInstance) {
  pool.phase = PoolPhase::kProving;
  pool.parked = 0;
  EXPECT_EQ(Plan(), "park 0");
  Http();
  EXPECT_EQ(Plan(), "start 0");
  EXPECT_EQ(reasons, "starts an instance: a new version proves itself\n");
}

TEST_F(PoolPolicy, NeverUsesASlotTwiceOrBeyondTheLast) {
  pool.slots = 2;
  pool.max = 10;
  pool.waiting = 10;
  Add(InstanceStep::kRunning);
  EXPECT_EQ(Plan(), "start-for-call 1");
}

TEST(BackOff, DoublesFromATenthOfASecondToTenSeconds) {
  EXPECT_EQ(StartBackOff(1), milliseconds(100));
  EXPECT_EQ(StartBackOff(2), milliseconds(200));
  EXPECT_EQ(StartBackOff(7), milliseconds(6400));
  EXPECT_EQ(StartBackOff(8), seconds(10));
  EXPECT_EQ(StartBackOff(1000000), seconds(10));
}

TEST_F(PoolPolicy, LetsAsManyWaitAsTheQueueAndTheInstancesToComeWillTake) {
  pool.max = 2;
  EXPECT_EQ(WaitingLimit(pool, 100), 102U);
  Add(InstanceStep::kRunning);
  Add(InstanceStep::kRunning);
  EXPECT_EQ(WaitingLimit(pool, 100), 100U);
  Http();
  pool.instances.clear();
  EXPECT_EQ(WaitingLimit(pool, 0), 20U);
}

TEST(MemoryBudget, GivesBackWhatALeaseHeld) {
  MemoryBudget budget(100, 2);
  int freed = 0;
  budget.set_on_freed([&] { ++freed; });
  {
    MemoryBudget::Lease first = budget.Take(60);
    EXPECT_TRUE(first.held());
    EXPECT_FALSE(budget.Take(41).held());
    EXPECT_FALSE(budget.Resize(&first, 101));
    EXPECT_TRUE(budget.Resize(&first, 10));
    MemoryBudget::Lease second = budget.Take(40);
    EXPECT_FALSE(budget.Take(1).held()) << "two instances are the most";
    EXPECT_EQ(budget.used(), 50U);
  }
  EXPECT_EQ(budget.used(), 0U);
  EXPECT_EQ(freed, 3) << "by the smaller size too";
}

// A model of a version's life, minutes long, under random load: the policy must keep every limit,
// never starve a call, and come to rest with nothing left.
class Simulation {
 public:
  explicit Simulation(unsigned seed) : random_(seed) {
    pool_.mode = random_() % 2 == 0 ? SandboxMode::kExec : SandboxMode::kHttp;
    pool_.max = 1 + random_() % 6;
    pool_.parked = random_() % 3;
    pool_.concurrency = pool_.mode == SandboxMode::kExec ? 1 : 1 + random_() % 20;
    pool_.slots = pool_.max + (pool_.mode == SandboxMode::kExec ? pool_.parked : 1);
    pool_.warmth.until = seconds(5);
    if (random_() % 2 == 0) pool_.warmth.from = seconds(2);
    const bool http = pool_.mode == SandboxMode::kHttp;
    pool_.ladder[Rung::kWarm].offered = true;
    pool_.ladder[Rung::kParked].offered = !http;
    pool_.descent.parked_for = seconds(6);
    pool_.ladder[Rung::kFrozen].offered = http && random_() % 3 != 0;
    pool_.descent.freeze_after = milliseconds(random_() % 3 * 40);
    pool_.ladder[Rung::kReclaimed].offered =
        pool_.ladder[Rung::kFrozen].offered && random_() % 2 == 0;
    pool_.descent.reclaimed_for = seconds(8);
  }

  void Run() {
    for (int step = 0; step < 4000; ++step) Step(step < 2000 ? random_() % 4 : 0);
    EXPECT_EQ(pool_.waiting, 0U);
    EXPECT_TRUE(pool_.instances.empty());
    EXPECT_EQ(pool_.spawner, SpawnerStep::kNone);
  }

 private:
  void Step(unsigned arrivals) {
    clock_.Advance(milliseconds(10));
    pool_.now = clock_.Now();
    if (arrivals > 0 && random_() % 3 == 0) {
      pool_.waiting += arrivals;
      pool_.last_used = pool_.now;
    }
    Progress();
    Serve();
    pool_.unused_since.reset();
    if (pool_.waiting == 0 && Open() == 0) pool_.unused_since = pool_.last_used;
    for (const PoolAction& action : PlanPool(pool_).actions) Apply(action);
    Check();
  }

  void Progress() {
    if (pool_.spawner == SpawnerStep::kBuilding) pool_.spawner = SpawnerStep::kReady;
    std::erase_if(pool_.instances, [&](InstanceSnapshot& instance) {
      const bool over = random_() % 2 == 0;
      if (instance.step == InstanceStep::kEnding) return over;
      if (instance.step == InstanceStep::kRunning) {
        if (over) pool_.last_used = pool_.now;
        return over;
      }
      if (instance.step == InstanceStep::kParking) instance.step = InstanceStep::kParked;
      if (instance.step == InstanceStep::kStarting) instance.step = InstanceStep::kWarm;
      if (instance.open_calls > 0) {
        instance.open_calls -= 1;
        instance.idle_since = pool_.last_used = pool_.now;
      }
      return random_() % 500 == 0;  // it dies, and what it served with it
    });
  }

  uint32_t Open() const {
    uint32_t open = 0;
    for (const auto& instance : pool_.instances) {
      open += instance.open_calls + (instance.step == InstanceStep::kRunning ? 1 : 0);
    }
    return open;
  }
  uint32_t Running() const {
    return static_cast<uint32_t>(
        std::count_if(pool_.instances.begin(), pool_.instances.end(), [](const auto& i) {
          return i.step == InstanceStep::kRunning || i.step == InstanceStep::kEnding;
        }));
  }

  void Serve() {
    for (InstanceSnapshot& instance : pool_.instances) {
      if (instance.step == InstanceStep::kParked && pool_.waiting > 0 && Running() < pool_.max) {
        instance.step = InstanceStep::kRunning;
        --pool_.waiting;
      }
      const bool frozen =
          instance.step == InstanceStep::kFrozen || instance.step == InstanceStep::kReclaimed;
      if (frozen && pool_.waiting > 0) instance.step = InstanceStep::kWarm;
      while (instance.step == InstanceStep::kWarm && pool_.waiting > 0 &&
             instance.open_calls < pool_.concurrency) {
        ++instance.open_calls;
        --pool_.waiting;
      }
    }
  }

  void Apply(const PoolAction& action) {
    EXPECT_FALSE(action.reason.empty());
    const auto it = std::find_if(pool_.instances.begin(), pool_.instances.end(),
                                 [&](const auto& i) { return i.slot == action.slot; });
    switch (action.kind) {
      case PoolActionKind::kBuildSpawner:
        pool_.spawner = SpawnerStep::kBuilding;
        return;
      case PoolActionKind::kDropSpawner:
        pool_.spawner = SpawnerStep::kNone;
        return;
      case PoolActionKind::kStop:
        ASSERT_NE(it, pool_.instances.end());
        EXPECT_EQ(it->open_calls, 0U);
        it->step = InstanceStep::kEnding;
        return;
      case PoolActionKind::kFreeze:
        ASSERT_NE(it, pool_.instances.end());
        EXPECT_EQ(it->step, InstanceStep::kWarm);
        EXPECT_EQ(it->open_calls, 0U);
        it->step = InstanceStep::kFrozen;
        it->pages = InstanceSnapshot::Pages::kIn;
        return;
      case PoolActionKind::kReclaim:
        ASSERT_NE(it, pool_.instances.end());
        EXPECT_EQ(it->step, InstanceStep::kFrozen);
        EXPECT_EQ(it->pages, InstanceSnapshot::Pages::kIn) << "asked twice";
        it->pages = InstanceSnapshot::Pages::kAsked;
        if (random_() % 2 == 0) it->step = InstanceStep::kReclaimed;
        return;
      case PoolActionKind::kStartForCall:
        --pool_.waiting;
        [[fallthrough]];
      case PoolActionKind::kPark:
      case PoolActionKind::kStart:
        ASSERT_EQ(it, pool_.instances.end()) << "slot taken";
        const InstanceStep step = action.kind == PoolActionKind::kPark    ? InstanceStep::kParking
                                  : action.kind == PoolActionKind::kStart ? InstanceStep::kStarting
                                                                          : InstanceStep::kRunning;
        const TimePoint idle_since = pool_.unused_since.value_or(pool_.now);
        pool_.instances.push_back({action.slot, step, 0, idle_since});
    }
  }

  void Check() {
    EXPECT_LE(pool_.instances.size(), pool_.slots);
    if (pool_.mode == SandboxMode::kExec) {
      EXPECT_LE(Running(), pool_.max);
    } else {
      const auto ending =
          std::count_if(pool_.instances.begin(), pool_.instances.end(),
                        [](const auto& i) { return i.step == InstanceStep::kEnding; });
      EXPECT_LE(pool_.instances.size() - static_cast<size_t>(ending), pool_.max);
    }
  }

  std::mt19937 random_;
  FakeClock clock_;
  PoolSnapshot pool_;
};

TEST(PoolSimulation, KeepsItsLimitsAndComesToRestWhateverHappens) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation(seed).Run();
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace pulga
