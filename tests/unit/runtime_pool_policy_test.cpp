// The pool's decisions, and a seeded simulation of them with a clock of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/clock.h"
#include "runtime/memory_budget.h"
#include "runtime/pool_policy.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolPolicy : public ::testing::Test {
 protected:
  PoolPolicy() {
    pool.now = pool.last_used = TimePoint(std::chrono::hours(1));
    pool.spawner = SpawnerStep::kReady;
  }
  void Http() {
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
    static const char* kNames[] = {"build", "drop", "start-for-call", "start", "park", "stop"};
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
  EXPECT_EQ(freed, 2);
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
    pool_.idle = seconds(5);
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
      case PoolActionKind::kStartForCall:
        --pool_.waiting;
        [[fallthrough]];
      case PoolActionKind::kPark:
      case PoolActionKind::kStart:
        ASSERT_EQ(it, pool_.instances.end()) << "slot taken";
        const InstanceStep step = action.kind == PoolActionKind::kPark    ? InstanceStep::kParking
                                  : action.kind == PoolActionKind::kStart ? InstanceStep::kStarting
                                                                          : InstanceStep::kRunning;
        pool_.instances.push_back({action.slot, step, 0, pool_.now});
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
