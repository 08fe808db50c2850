// Servers frozen when idle and thawed for the next call, over the fake sandbox.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "runtime/pool_policy.h"
#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using testing::FakeConnection;

class FreezeTest : public testing::CallTest {
 protected:
  FreezeTest() : version(MakeVersion(SandboxMode::kHttp)) {
    version->spec.scale.freeze_after = Duration::zero();
    version->spec.scale.max = 1;
  }
  void Serve() {
    sandbox->SetHandler([this](FakeConnection& c) {
      ++connections;
      while (!c.ReadRequest().empty()) c.Reply("x");
    });
    ASSERT_TRUE(Activate(version).ok());
  }
  std::string Step() {
    const auto instances = dispatcher->Activity(key).instances;
    return instances.empty() ? "" : instances[0].step;
  }
  void Warm() {
    EXPECT_EQ(Call(Request())->call->receipt().start, StartKind::kCold);
    ASSERT_TRUE(RunUntil([&] { return Step() == "frozen"; }));
  }
  std::shared_ptr<Version> version;
  std::atomic<int> connections = 0;
};

TEST_F(FreezeTest, AnIdleServerIsFrozenAndThawedForTheNextCall) {
  sandbox->processes = 3;
  Serve();
  Warm();
  EXPECT_EQ(sandbox->frozen.size(), 1U);
  EXPECT_EQ(dispatcher->Activity(key).instances[0].children, 2U);
  EXPECT_EQ(dispatcher->Activity(key).last_decision, "freezes an instance: idle for 0s");
  auto client = Call(Request());
  EXPECT_EQ(client->body, "x");
  EXPECT_EQ(client->call->receipt().start, StartKind::kFrozen);
  EXPECT_GE(client->call->receipt().sandbox_ms, 0);
  EXPECT_TRUE(RunUntil([&] { return Step() == "frozen"; }));
  EXPECT_EQ(sandbox->thaws, 1);
  EXPECT_EQ(sandbox->starts, 1);
  EXPECT_EQ(connections, 1) << "a short rest costs no connection";
}

// With a target for their load, servers that were added for it do it.
class SpreadTest : public FreezeTest {
 protected:
  SpreadTest() {
    version->spec.scale.max = 3;
    version->spec.scale.min = 3;
    version->spec.scale.freeze_after = std::chrono::minutes(5);
    version->concurrency = 100;
    sandbox->SetHandler([this](FakeConnection& c) {
      while (!c.ReadRequest().empty()) {
        {
          const std::lock_guard lock(mutex_);
          asked_.insert(c.slot);
        }
        while (!go) std::this_thread::sleep_for(milliseconds(1));
        c.Reply("x");
      }
    });
  }
  void Serve() {
    ASSERT_TRUE(Activate(version).ok());
    ASSERT_TRUE(RunUntil([&] { return Steps("warm") == 3; }));
  }
  long Steps(const std::string& step) {
    const auto instances = dispatcher->Activity(key).instances;
    return std::count_if(instances.begin(), instances.end(),
                         [&](const auto& instance) { return instance.step == step; });
  }
  std::vector<uint32_t> Calls() {
    std::vector<uint32_t> calls;
    for (const auto& instance : dispatcher->Activity(key).instances) {
      calls.push_back(instance.open_calls);
    }
    std::sort(calls.begin(), calls.end());
    return calls;
  }
  template <typename Begun>
  void Finish(Begun& begun) {
    go = true;
    for (const auto& client : begun) EXPECT_TRUE(RunUntil([&] { return client->done(); }));
  }
  size_t ServersAsked() {
    const std::lock_guard lock(mutex_);
    return asked_.size();
  }
  std::atomic<bool> go = false;

 private:
  std::mutex mutex_;
  std::set<uint16_t> asked_;
};

TEST_F(SpreadTest, EachCallGoesToTheLeastBusy) {
  Serve();
  std::vector<decltype(Begin(Request()))> begun;
  for (int i = 0; i < 6; ++i) begun.push_back(Begin(Request()));
  EXPECT_TRUE(RunUntil([&] { return Calls() == std::vector<uint32_t>{2, 2, 2}; }));
  Finish(begun);
}

TEST_F(SpreadTest, WithoutATargetTheFirstServesAndTheRestMayRest) {
  Serve();
  go = true;
  for (int i = 0; i < 6; ++i) Call(Request());
  EXPECT_EQ(ServersAsked(), 1U);
}

TEST_F(SpreadTest, WithATargetAllTakeTurns) {
  version->spec.scale.rps_target = 5;
  Serve();
  go = true;
  for (int i = 0; i < 6; ++i) Call(Request());
  EXPECT_EQ(ServersAsked(), 3U);
}

TEST_F(SpreadTest, OneThatRestsIsThawedOnceTheOthersHaveWhatTheyShould) {
  version->spec.scale.target = 2;
  version->spec.scale.freeze_after = Duration::zero();
  ASSERT_TRUE(Activate(version).ok());
  ASSERT_TRUE(RunUntil([&] { return Steps("frozen") == 3; }));
  std::vector<decltype(Begin(Request()))> begun;
  for (int i = 0; i < 2; ++i) begun.push_back(Begin(Request()));
  ASSERT_TRUE(RunUntil([&] { return Steps("busy") == 1; }));
  EXPECT_EQ(Steps("frozen"), 2);
  for (int i = 0; i < 3; ++i) begun.push_back(Begin(Request()));
  EXPECT_TRUE(RunUntil([&] { return Calls() == std::vector<uint32_t>{1, 2, 2}; }));
  Finish(begun);
}

TEST_F(FreezeTest, AServerWithAnOpenCallOrBeforeItsTimeIsLeftAlone) {
  version->spec.scale.freeze_after = std::chrono::minutes(5);
  Serve();
  EXPECT_EQ(Call(Request())->body, "x");
  RunFor(milliseconds(20));
  EXPECT_EQ(Step(), "warm");
  EXPECT_EQ(sandbox->freezes, 0);
}

TEST_F(FreezeTest, NoServerIsFrozenWhileItHasACall) {
  std::atomic<bool> go = false;
  sandbox->SetHandler([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      while (!go) std::this_thread::sleep_for(milliseconds(1));
      c.Reply("x");
    }
  });
  ASSERT_TRUE(Activate(version).ok());
  auto first = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return Step() == "busy"; }));
  RunFor(milliseconds(20));
  EXPECT_EQ(sandbox->freezes, 0);
  go = true;
  ASSERT_TRUE(RunUntil([&] { return first->done(); }));
  EXPECT_TRUE(RunUntil([&] { return sandbox->freezes == 1; }));
}

TEST_F(FreezeTest, NeverMeansNever) {
  version->spec.scale.freeze_after = kNeverFreeze;
  Serve();
  EXPECT_EQ(Call(Request())->body, "x");
  RunFor(milliseconds(20));
  EXPECT_EQ(Step(), "warm");
  EXPECT_EQ(Call(Request())->call->receipt().start, StartKind::kWarm);
}

TEST_F(FreezeTest, AKernelWithoutAFreezerIsWarnedOfOnce) {
  sandbox->freeze_error = "this kernel has no cgroup freezer";
  Serve();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Call(Request())->body, "x");
  const std::vector<std::string> wanted = {
      "idle instances are not frozen: this kernel has no cgroup freezer"};
  EXPECT_TRUE(RunUntil([&] { return dispatcher->Activity(key).warnings == wanted; }));
  EXPECT_EQ(Step(), "warm");
}

TEST_F(FreezeTest, AFreezeThatFailedIsTriedAgainLater) {
  sandbox->freeze_error = "interrupted";
  Serve();
  EXPECT_EQ(Call(Request())->body, "x");
  ASSERT_TRUE(RunUntil([&] { return !dispatcher->Activity(key).warnings.empty(); }));
  sandbox->freeze_error.clear();
  EXPECT_TRUE(RunUntil([&] { return Step() == "frozen"; }));
  EXPECT_TRUE(dispatcher->Activity(key).warnings.empty());
}

TEST(FreezePause, DoublesUpToAnHour) {
  Duration pause = NextFreezePause(Duration::zero());
  EXPECT_LT(pause, std::chrono::seconds(1));
  const Duration next = NextFreezePause(pause);
  EXPECT_EQ(next, 2 * pause);
  for (int i = 0; i < 40; ++i) pause = NextFreezePause(pause);
  EXPECT_EQ(pause, std::chrono::hours(1));
}

TEST_F(FreezeTest, WhatCannotBeThawedIsReplaced) {
  Serve();
  Warm();
  sandbox->thaw_error = "I/O error";
  auto client = Call(Request());
  EXPECT_EQ(client->body, "x");
  EXPECT_EQ(client->call->receipt().start, StartKind::kCold);
  EXPECT_EQ(sandbox->starts, 2);
}

TEST_F(FreezeTest, AFrozenServerIsStoppedWhenIdleLongEnoughOrReplaced) {
  version->spec.scale.idle = milliseconds(20);
  Serve();
  Warm();
  EXPECT_TRUE(RunUntil([&] { return Instances() == 0; }));
  EXPECT_TRUE(sandbox->frozen.empty()) << "a SIGTERM it could not see";
  Warm();
  version = MakeVersion(SandboxMode::kHttp);
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 1; }));
  EXPECT_EQ(Call(Request())->body, "x");
}

TEST_F(FreezeTest, AfterASecondKeptAliveConnectionsAreNotTrusted) {
  Serve();
  Warm();
  RunFor(milliseconds(1100));
  EXPECT_EQ(Call(Post(4), "body")->body, "x");
  EXPECT_EQ(connections, 2) << "the server may be about to close the first";
}

}  // namespace
}  // namespace pulga
