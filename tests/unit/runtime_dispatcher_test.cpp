// The dispatcher over a fake sandbox: queues, switches, memory, launchers that come and go.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>

#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using testing::Client;
using testing::Exited;
using testing::FakeConnection;
using testing::FakeProgram;
using testing::Killed;

class DispatcherTest : public testing::CallTest {
 protected:
  testing::FakeScript Prints(std::string text) {
    return [text](FakeProgram& p) {
      p.Print(text);
      return Exited(0);
    };
  }
};

TEST_F(DispatcherTest, AnswersUnknownFunctionsWithAnOutcome) {
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "rejected:unknown-function");
  EXPECT_EQ(client->status(), 0);
}

TEST_F(DispatcherTest, BuildsNothingOfARestoredVersionBeforeTheFirstCall) {
  Restore(MakeVersion(SandboxMode::kExec));
  RunFor(std::chrono::milliseconds(5));
  EXPECT_EQ(sandbox->builds, 0);
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, ProvesAFirstVersionByItsSpawnerAloneAndKeepsThatForAWhile) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.idle = std::chrono::milliseconds(50);
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(sandbox->builds, 1);
  EXPECT_EQ(sandbox->spawners, 1);
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 0; })) << "nobody called";
  EXPECT_EQ(sandbox->parks, 0);
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, RefusesAFirstVersionThatCannotBeBuiltAndForgetsIt) {
  sandbox->build_error = "cannot run \"nonexist\"";
  EXPECT_EQ(Activate(MakeVersion(SandboxMode::kExec)).error().message, sandbox->build_error);
  EXPECT_EQ(Call(Request())->outcome(), "rejected:unknown-function");
  EXPECT_EQ(dispatcher->Scale(key, 1).error().code, Code::kNotFound);
  sandbox->build_error.clear();
  EXPECT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
}

// Where one was dropped the next is made, most often in the same memory.
TEST_F(DispatcherTest, ProvesTheNewestOfSeveralVersionsWhateverBecameOfTheOthers) {
  std::vector<std::string> told(8, "nothing");
  for (std::string& text : told) {
    dispatcher->Activate(MakeVersion(SandboxMode::kExec), [&text](const Status& status) {
      text = status.ok() ? "ok" : status.error().message;
    });
  }
  EXPECT_TRUE(RunUntil([&] { return told.back() != "nothing"; }));
  EXPECT_EQ(told.back(), "ok");
  told.pop_back();
  for (const std::string& text : told) EXPECT_EQ(text, "a newer version took its place");
}

TEST_F(DispatcherTest, KnowsNoFunctionWhileItsFirstVersionProvesItself) {
  sandbox->build_delay = std::chrono::milliseconds(20);
  std::optional<Status> proven;
  dispatcher->Activate(MakeVersion(SandboxMode::kExec), [&](Status s) { proven = std::move(s); });
  EXPECT_EQ(Call(Request())->outcome(), "rejected:unknown-function");
  EXPECT_EQ(dispatcher->Activity(key).version, 0U);
  EXPECT_EQ(dispatcher->Scale(key, 1).error().code, Code::kNotFound);
  ASSERT_TRUE(RunUntil([&] { return proven.has_value(); }));
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, TakesAFirstVersionUnprovenWhenTheLauncherIsFull) {
  sandbox->build_error = "too many versions or slots at once";
  sandbox->build_error_code = Code::kNoSpace;
  EXPECT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  EXPECT_FALSE(Activate(MakeVersion(SandboxMode::kExec)).ok()) << "not in place of another";
  sandbox->build_error.clear();
  RunFor(std::chrono::milliseconds(120));
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, RefusesADeployAndKeepsCallsWaitingWhileAnotherFunctionHoldsTheDevice) {
  sandbox->build_error = "devices[0]: /dev/x is held by a/led (exclusive)";
  sandbox->build_error_code = Code::kAlreadyExists;
  sandbox->build_errno = EBUSY;
  EXPECT_EQ(Activate(MakeVersion(SandboxMode::kExec)).error().message, sandbox->build_error);
  Restore(MakeVersion(SandboxMode::kExec));
  auto waiting = Begin(Request());
  const int before = sandbox->builds;
  ASSERT_TRUE(RunUntil([&] { return sandbox->builds > before + 1; })) << "it asks again";
  auto another = Begin(Request());
  EXPECT_FALSE(waiting->done() || another->done());
  sandbox->build_error.clear();
  ASSERT_TRUE(RunUntil([&] { return waiting->done() && another->done(); }));
  EXPECT_EQ(waiting->outcome(), "ok");
  EXPECT_EQ(another->outcome(), "ok");
}

TEST_F(DispatcherTest, TellsACallThatWaitedInVainWhoHoldsTheDevice) {
  sandbox->build_error = "devices[0]: /dev/x is held by a/led (exclusive)";
  sandbox->build_error_code = Code::kAlreadyExists;
  sandbox->build_errno = EBUSY;
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.queue_wait = std::chrono::milliseconds(30);
  version->spec.limits.start_timeout = std::chrono::milliseconds(30);
  Restore(version);
  const auto call = Call(Request());
  EXPECT_EQ(call->outcome(), "rejected:unavailable");
  EXPECT_NE(call->call->FailureText().find("held by a/led"), std::string::npos);
}

TEST_F(DispatcherTest, RestoresInPlaceOfWhatIsActiveWithoutAFailedCall) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  auto before = Begin(Request());
  Restore(MakeVersion(SandboxMode::kHttp));
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  ASSERT_TRUE(RunUntil([&] { return before->done(); }));
  EXPECT_EQ(before->outcome(), "ok");
  EXPECT_EQ(dispatcher->Activity(key).version, 2U);
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 1; })) << "the other one is gone";
}

TEST_F(DispatcherTest, KeepsTheMinimumFromTheStart) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.min = 2;
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_TRUE(RunUntil([&] { return sandbox->parks == 2; }));
}

TEST_F(DispatcherTest, RunsTwoQueuesAHundredAndRefusesTheRestOfTwoHundred) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.max = 2;
  version->spec.scale.queue = 100;
  sandbox->program = [](FakeProgram& p) {
    p.Print("x");
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 200; ++i) clients.push_back(Begin(Request()));
  int ok = 0, full = 0;
  for (auto& client : clients) {
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    ok += client->outcome() == "ok" ? 1 : 0;
    if (client->outcome() != "rejected:queue-full") continue;
    ++full;
    EXPECT_EQ(client->call->head().retry_after_s, 1U);
  }
  EXPECT_EQ(ok, 102);
  EXPECT_EQ(full, 98);
  EXPECT_LE(sandbox->max_running, 2);
  EXPECT_EQ(dispatcher->Activity(key).outcomes.at("rejected"), 98U);
}

TEST_F(DispatcherTest, ServesTheQueueInOrder) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.max = 1;
  sandbox->program = Prints("x");
  ASSERT_TRUE(Activate(version).ok());
  std::vector<int> order;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 30; ++i) {
    clients.push_back(std::make_unique<Client>());
    clients.back()->on_head = [&order, i] { order.push_back(i); };
    clients.back()->Start(*dispatcher, Request());
  }
  ASSERT_TRUE(RunUntil([&] { return order.size() == 30; }));
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(DispatcherTest, RefusesWhatWaitedTooLong) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.max = 1;
  version->spec.scale.queue_wait = std::chrono::milliseconds(40);
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(version).ok());
  auto running = Begin(Request());
  EXPECT_EQ(Call(Request())->outcome(), "rejected:queue-timeout");
}

TEST_F(DispatcherTest, ForgetsAWaitingCallWhoseClientLeft) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.max = 1;
  version->spec.scale.parked = 0;
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(version).ok());
  auto running = Begin(Request());
  auto waiting = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  EXPECT_EQ(dispatcher->Activity(key).queued, 1U);
  waiting->Leave();
  EXPECT_EQ(dispatcher->Activity(key).queued, 0U);
  running->Leave();
  RunFor(std::chrono::milliseconds(20));
  EXPECT_EQ(sandbox->starts, 1);
}

TEST_F(DispatcherTest, SwitchesUnderLoadWithoutAFailedCall) {
  auto version = MakeVersion(SandboxMode::kHttp);
  ASSERT_TRUE(Activate(version).ok());
  std::vector<std::unique_ptr<Client>> clients;
  bool switched = false;
  for (int round = 0; round < 400; ++round) {
    for (int i = 0; i < 3; ++i) clients.push_back(Begin(Request()));
    loop->RunOnce(std::chrono::milliseconds(1));
    if (round == 100) {
      dispatcher->Activate(MakeVersion(SandboxMode::kHttp), [&](Status s) { switched = s.ok(); });
    }
  }
  for (auto& client : clients) {
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    EXPECT_EQ(client->outcome(), "ok");
  }
  EXPECT_TRUE(switched);
  EXPECT_EQ(dispatcher->Activity(key).version, 2U);
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 1; })) << "the old version is gone";
}

TEST_F(DispatcherTest, KeepsTheOldVersionWhenTheNewOneCannotStart) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  sandbox->server_exit = Exited(1);
  const Status failed = Activate(MakeVersion(SandboxMode::kHttp));
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(failed.error().message.find("exited with code 1"), std::string::npos);
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(dispatcher->Activity(key).version, 1U);
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 1; }));
}

TEST_F(DispatcherTest, KeepsAnIdleHttpVersionToo) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(sandbox->starts, 0) << "the first one waits for its calls";
  sandbox->server_exit = Exited(1);
  EXPECT_EQ(Activate(MakeVersion(SandboxMode::kHttp)).error().code, Code::kUnavailable);
  EXPECT_EQ(dispatcher->Activity(key).version, 1U);
  sandbox->server_exit = -1;
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, RefusesAFirstVersionWithAMinimumWhoseServerEnds) {
  auto version = MakeVersion(SandboxMode::kHttp);
  version->spec.scale.min = 1;
  sandbox->server_exit = Exited(3);
  EXPECT_EQ(Activate(version).error().code, Code::kUnavailable);
  EXPECT_EQ(Call(Request())->outcome(), "rejected:unknown-function");
}

TEST_F(DispatcherTest, KeepsTheOldVersionWhenTheNewOneCannotBeBuilt) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  sandbox->build_error = "mount overlay: Invalid argument";
  EXPECT_EQ(Activate(MakeVersion(SandboxMode::kExec)).error().message,
            "mount overlay: Invalid argument");
  EXPECT_EQ(dispatcher->Activity(key).version, 1U);
}

TEST_F(DispatcherTest, GivesAVersionItReturnsToANameOfItsOwnWhileItDrains) {
  auto first = MakeVersion(SandboxMode::kExec);
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(first).ok());
  auto running = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  ASSERT_TRUE(Activate(first).ok());
  ASSERT_EQ(sandbox->specs.size(), 3U);
  EXPECT_NE(sandbox->specs[0].version_id, sandbox->specs[2].version_id);
}

TEST_F(DispatcherTest, ReportsABuildErrorAsSetupFailedAndTriesAgainLater) {
  sandbox->build_error = "mount overlay: Invalid argument";
  Restore(MakeVersion(SandboxMode::kExec));
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "setup-failed:build-version");
  EXPECT_NE(client->call->FailureText().find("mount overlay"), std::string::npos);
  const auto backing_off = Call(Request());
  for (const char* part : {"mount overlay", "starts are failing, ", "the next try is in "}) {
    EXPECT_NE(backing_off->call->FailureText().find(part), std::string::npos) << part;
  }
  sandbox->build_error.clear();
  RunFor(std::chrono::milliseconds(120));
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, TellsWhatTheKernelDoesNotEnforceAndCallsItNoTrouble) {
  sandbox->warnings = {"the swap limit is not enforced", "io limits are not enforced"};
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  EXPECT_EQ(dispatcher->Activity(key).warnings, sandbox->warnings);
  EXPECT_EQ(dispatcher->Activity(key).trouble, "");
}

TEST_F(DispatcherTest, AGlanceAsksForNoPartsOfAnInstancesMemory) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.parked = 1;
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  ASSERT_TRUE(RunUntil([&] { return Instances() == 1; }));
  const FunctionActivity glance = dispatcher->Glance(key);
  ASSERT_EQ(glance.instances.size(), 1U);
  EXPECT_EQ(glance.instances[0].memory.total, sandbox->memory_bytes);
  EXPECT_EQ(glance.instances[0].memory.anon, 0U) << "asked for";
  EXPECT_EQ(glance.invocations, 1U);
  EXPECT_EQ(glance.outcomes.at("ok"), 1U);
  EXPECT_EQ(dispatcher->Activity(key).instances[0].memory.anon, sandbox->memory.anon);
}

TEST_F(DispatcherTest, TellsWhatItsLastSpawnerGotOnceThatIsGone) {
  sandbox->layers = {{"seccomp", FeatureState::kPresent, "234 instructions", ""}};
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  EXPECT_EQ(dispatcher->Activity(key).isolation.size(), 1U);
  sandbox->KillSpawners("it was killed");
  RunFor(std::chrono::milliseconds(5));
  sandbox->layers.clear();
  ASSERT_EQ(dispatcher->Activity(key).isolation.size(), 1U);
  EXPECT_EQ(dispatcher->Activity(key).isolation[0].detail, "234 instructions");
}

TEST_F(DispatcherTest, LetsCallsWaitForTheNextLauncher) {
  sandbox->set_available(false);
  EXPECT_EQ(Activate(MakeVersion(SandboxMode::kExec)).error().code, Code::kUnavailable);
  Restore(MakeVersion(SandboxMode::kExec));
  auto client = Begin(Request());
  RunFor(std::chrono::milliseconds(10));
  EXPECT_FALSE(client->done());
  EXPECT_EQ(dispatcher->Activity(key).trouble, "the launcher is restarting");
  sandbox->set_available(true);
  dispatcher->OnSandboxAvailable();
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(DispatcherTest, SaysUnavailableWhenNoLauncherComesInTime) {
  sandbox->set_available(false);
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.queue_wait = std::chrono::milliseconds(30);
  Restore(version);
  EXPECT_EQ(Call(Request())->outcome(), "rejected:unavailable");
}

TEST_F(DispatcherTest, KeepsACallWaitingForAsLongAsItMayWhileSpawnersDie) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.parked = 0;
  ASSERT_TRUE(Activate(version).ok());
  sandbox->broken_pipes = 3;
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(sandbox->broken_pipes, 0);
}

TEST_F(DispatcherTest, TellsACallThatWaitedInVainWhoDied) {
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.parked = 0;
  version->spec.scale.queue_wait = std::chrono::milliseconds(0);
  ASSERT_TRUE(Activate(version).ok());
  sandbox->broken_pipes = 1000;
  EXPECT_EQ(Call(Request())->outcome(), "setup-failed:spawner-lost");
}

TEST_F(DispatcherTest, RefusesWhatTheMemoryBudgetCannotHold) {
  config.memory_budget_bytes = 100 << 20;
  Restart();
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.sandbox.memory_bytes = 101 << 20;
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "rejected:memory");
  EXPECT_EQ(client->call->head().retry_after_s, 5U);
}

TEST_F(DispatcherTest, DropsTheSpawnerOfAFunctionThatFoundNoMemory) {
  config.memory_budget_bytes = 100 << 20;
  config.idle = std::chrono::milliseconds(40);
  Restart();
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.sandbox.memory_bytes = 101 << 20;
  version->spec.scale.parked = 0;
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(Request())->outcome(), "rejected:memory");
  EXPECT_EQ(sandbox->spawners, 1);
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 0; }));
}

TEST_F(DispatcherTest, StopsWhatIsIdleAndThenDropsTheSpawner) {
  config.idle = std::chrono::milliseconds(40);
  Restart();
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  Call(Request());
  EXPECT_TRUE(RunUntil([&] { return sandbox->parks == 1; }));
  EXPECT_TRUE(RunUntil([&] { return sandbox->live == 0; }));
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 0; }));
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(DispatcherTest, ScalesUpAndDownByHand) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  ASSERT_TRUE(dispatcher->Scale(key, 3).ok());
  EXPECT_TRUE(RunUntil([&] { return sandbox->live == 3; }));
  EXPECT_EQ(dispatcher->Scale(key, 5).error().code, Code::kInvalidArgument);
  RunFor(std::chrono::milliseconds(10));
  ASSERT_TRUE(dispatcher->Scale(key, 0).ok());
  EXPECT_TRUE(RunUntil([&] { return sandbox->live == 0; }));
}

TEST_F(DispatcherTest, ScalesDownWhatIsStillStarting) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  ASSERT_TRUE(dispatcher->Scale(key, 3).ok());
  ASSERT_TRUE(RunUntil([&] { return sandbox->live > 1; }));
  ASSERT_TRUE(dispatcher->Scale(key, 0).ok());
  EXPECT_TRUE(RunUntil([&] { return sandbox->live == 0; }));
}

TEST_F(DispatcherTest, DeactivatesAfterTheOpenCallsHaveEnded) {
  std::atomic<bool> go = false;
  sandbox->program = [&](FakeProgram& p) {
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    p.Print("late");
    return Exited(0);
  };
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  bool gone = false;
  dispatcher->Deactivate(key, [&] { gone = true; });
  EXPECT_EQ(Call(Request())->outcome(), "rejected:unknown-function");
  EXPECT_FALSE(gone);
  go = true;
  EXPECT_TRUE(RunUntil([&] { return gone; }));
  EXPECT_EQ(client->body, "late");
  EXPECT_EQ(sandbox->spawners, 0);
}

TEST_F(DispatcherTest, AReplacementWaitsForCallsAsLongAsTheirOwnLimitsAllow) {
  config.drain_timeout = std::chrono::milliseconds(1);
  Restart();
  std::atomic<bool> go = false;
  sandbox->program = [&](FakeProgram& p) {
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    p.Print("late");
    return Exited(0);
  };
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.limits.timeout = std::chrono::minutes(1);
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  RunFor(std::chrono::milliseconds(50));
  EXPECT_FALSE(client->done());
  go = true;
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body, "late");
}

TEST_F(DispatcherTest, ARemovalEndsTheCallsOfReplacedVersionsToo) {
  config.drain_timeout = std::chrono::milliseconds(1);
  Restart();
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.limits.timeout = std::chrono::minutes(1);
  ASSERT_TRUE(Activate(version).ok());
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  bool gone = false;
  dispatcher->Deactivate(key, [&] { gone = true; });
  EXPECT_TRUE(RunUntil([&] { return gone; }));
  EXPECT_EQ(client->outcome(), "signaled:SIGKILL");
}

TEST_F(DispatcherTest, EndsEveryCallWithAnOutcomeWhenItDrains) {
  sandbox->program = [](FakeProgram& p) { return Killed(p.WaitForSignal()); };
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(Begin(Request()));
  bool drained = false;
  dispatcher->Drain(std::chrono::steady_clock::now() + std::chrono::milliseconds(50),
                    [&] { drained = true; });
  EXPECT_EQ(Call(Request())->outcome(), "rejected:shutting-down");
  std::map<std::string, int> ends;
  for (auto& client : clients) {
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    ++ends[client->outcome()];
    const bool ran = client->outcome() == "signaled:SIGKILL";
    EXPECT_EQ(client->call->head().retry_after_s, ran ? 0U : 1U);
    EXPECT_EQ(client->call->FailureText().find("it may have run") != std::string::npos, ran);
  }
  // scale.max of them ran.
  EXPECT_EQ(ends,
            (std::map<std::string, int>{{"rejected:shutting-down", 6}, {"signaled:SIGKILL", 4}}));
  clients.clear();
  EXPECT_TRUE(RunUntil([&] { return drained; }));
}

TEST_F(DispatcherTest, SurvivesInstancesAndSpawnersThatDieAtRandom) {
  std::mt19937 random(20240229);
  const auto chance = [&](int one_in) { return random() % static_cast<unsigned>(one_in) == 0; };
  auto version = MakeVersion(SandboxMode::kExec);
  version->spec.scale.max = 3;
  version->spec.scale.parked = 2;
  version->spec.limits.timeout = std::chrono::milliseconds(300);
  std::atomic<unsigned> turn = 0;
  sandbox->program = [&](FakeProgram& p) {
    const unsigned way = turn++ % 7;
    p.Print("answer " + p.ReadAll());
    if (way == 0) return Exited(1);
    if (way == 1) return Killed(SIGSEGV);
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 600; ++i) {
    clients.push_back(Begin(Post(4), std::to_string(1000 + i)));
    if (chance(10)) clients[random() % clients.size()]->Leave();
    if (chance(15)) sandbox->KillInstance(static_cast<uint16_t>(random() % 5), Killed(SIGKILL));
    if (chance(60)) sandbox->KillSpawners("chaos");
    if (chance(3)) loop->RunOnce(std::chrono::milliseconds(1));
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    if (clients[i]->call == nullptr) continue;
    ASSERT_TRUE(RunUntil([&] { return clients[i]->done(); })) << i;
    EXPECT_FALSE(clients[i]->contract_broken);
    // Never somebody else's answer.
    if (clients[i]->status() == 200) {
      EXPECT_EQ(clients[i]->body, "answer " + std::to_string(1000 + i));
    }
  }
  EXPECT_LE(sandbox->max_running, 3);
  sandbox->program = Prints("fine");
  RunFor(std::chrono::milliseconds(300));
  RunUntil([&] { return Call(Request())->body == "fine"; });
}

}  // namespace
}  // namespace pulga
