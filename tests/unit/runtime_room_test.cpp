// The memory budget between functions: who gives way, who waits, who is next; over the fake
// sandbox.
#include <algorithm>
#include <atomic>
#include <random>

#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using testing::Client;
using testing::Exited;
using testing::FakeConnection;
using testing::FakeProgram;

// Every start takes a tenth of a second by it, and nothing else any, however busy the machine is.
class StandingClock final : public Clock {
 public:
  TimePoint Now() const override { return now_ + starts() * milliseconds(100); }
  std::chrono::system_clock::time_point WallTime() const override {
    return SystemClock().WallTime();
  }

  std::function<int()> starts = [] { return 0; };

 private:
  TimePoint now_ = SystemClock().Now();
};

class RoomTest : public testing::CallTest {
 protected:
  RoomTest() {
    config.memory_budget_bytes = 100 << 20;
    Restart();
  }
  std::shared_ptr<Version> Named(const std::string& name, SandboxMode mode) {
    auto version = MakeVersion(mode);
    version->key.name = name;
    version->spec.scale.parked = 0;
    return version;
  }
  InvocationRequest RequestOf(const std::string& name) {
    InvocationRequest request = Request();
    request.function.name = name;
    return request;
  }
  FunctionActivity Of(const std::string& name) {
    FunctionKey other = key;
    other.name = name;
    return dispatcher->Activity(other);
  }
  std::string Step(const std::string& name) {
    const auto instances = Of(name).instances;
    return instances.empty() ? "" : instances[0].step;
  }
  // Programs wait until `go`.
  void HoldPrograms() {
    sandbox->program = [this](FakeProgram&) {
      while (!go) std::this_thread::sleep_for(milliseconds(1));
      return Exited(0);
    };
  }
  ~RoomTest() override {
    go = true;
    dispatcher.reset();  // before its clock
    RunFor(Duration::zero());
  }
  std::atomic<bool> go = false;
  StandingClock standing;
};

TEST_F(RoomTest, FreezesAnIdleServerOfAnotherFunction) {
  ASSERT_TRUE(Activate(Named("f", SandboxMode::kHttp)).ok());
  ASSERT_TRUE(Activate(Named("g", SandboxMode::kHttp)).ok());
  EXPECT_EQ(Call(RequestOf("f"))->outcome(), "ok");
  EXPECT_EQ(Call(RequestOf("g"))->outcome(), "ok");
  EXPECT_EQ(Step("f"), "frozen");
  EXPECT_EQ(Of("f").decisions.back().text,
            "freezes an instance: another function needs the memory");
  EXPECT_LE(dispatcher->Totals().memory_used_bytes, 100U << 20);
  auto again = Call(RequestOf("f"));
  EXPECT_EQ(again->call->receipt().start, StartKind::kFrozen) << "the other one gives way in turn";
  EXPECT_LE(dispatcher->Totals().memory_used_bytes, 100U << 20);
}

TEST_F(RoomTest, StopsOneThatIsNotToBeFrozen) {
  auto version = Named("f", SandboxMode::kHttp);
  version->spec.scale.freeze_after = kNeverFreeze;
  ASSERT_TRUE(Activate(version).ok());
  ASSERT_TRUE(Activate(Named("g", SandboxMode::kHttp)).ok());
  EXPECT_EQ(Call(RequestOf("f"))->outcome(), "ok");
  EXPECT_EQ(Call(RequestOf("g"))->outcome(), "ok");
  EXPECT_TRUE(RunUntil([&] { return Step("f").empty(); }));
  EXPECT_EQ(Of("f").decisions.back().text, "stops an instance: another function needs the memory");
}

TEST_F(RoomTest, GivesUpWhatIsCalledLeast) {
  config.memory_budget_bytes = 140 << 20;
  dispatcher.reset();
  standing.starts = [this] { return sandbox->starts.load(); };
  dispatcher = Dispatcher::Create(config, *loop, standing, *sandbox, logs);
  for (const char* name : {"f", "g", "h"}) {
    auto version = Named(name, SandboxMode::kHttp);
    version->spec.scale.freeze_after = kNeverFreeze;
    ASSERT_TRUE(Activate(version).ok());
  }
  EXPECT_EQ(Call(RequestOf("g"))->outcome(), "ok");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Call(RequestOf("f"))->outcome(), "ok");
  EXPECT_EQ(Call(RequestOf("g"))->outcome(), "ok");  // used last, but seldom
  EXPECT_EQ(Call(RequestOf("h"))->outcome(), "ok");
  EXPECT_EQ(Step("f"), "warm");
  EXPECT_TRUE(RunUntil([&] { return Step("g").empty(); }));
}

TEST_F(RoomTest, ACallWaitsForMemoryThatCallsHold) {
  HoldPrograms();
  ASSERT_TRUE(Activate(Named("f", SandboxMode::kExec)).ok());
  ASSERT_TRUE(Activate(Named("g", SandboxMode::kExec)).ok());
  auto first = Begin(RequestOf("f"));
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  auto second = Begin(RequestOf("g"));
  RunFor(milliseconds(20));
  EXPECT_FALSE(second->done());
  EXPECT_EQ(Of("g").trouble, "the memory budget is used up");
  go = true;
  ASSERT_TRUE(RunUntil([&] { return first->done() && second->done(); }));
  EXPECT_EQ(second->outcome(), "ok");
}

TEST_F(RoomTest, ACallThatWaitedForMemoryInVainIsToldSo) {
  HoldPrograms();
  ASSERT_TRUE(Activate(Named("f", SandboxMode::kExec)).ok());
  auto version = Named("g", SandboxMode::kExec);
  version->spec.scale.queue_wait = milliseconds(30);
  version->spec.scale.idle = milliseconds(40);
  ASSERT_TRUE(Activate(version).ok());
  auto first = Begin(RequestOf("f"));
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  EXPECT_EQ(Call(RequestOf("g"))->outcome(), "rejected:memory");
  EXPECT_TRUE(RunUntil([&] { return sandbox->spawners == 1; })) << "it goes as any that is unused";
}

TEST_F(RoomTest, WhatCanNeverFitIsRefusedAtOnceAndSaysWhy) {
  auto kept = Named("f", SandboxMode::kHttp);
  kept->spec.scale.min = 1;
  ASSERT_TRUE(Activate(kept).ok());
  ASSERT_TRUE(Activate(Named("g", SandboxMode::kHttp)).ok());
  auto promised = Call(RequestOf("g"));
  EXPECT_EQ(promised->outcome(), "rejected:memory");
  EXPECT_NE(promised->call->FailureText().find("scale.min of others keeps the rest"),
            std::string::npos)
      << promised->call->FailureText();
  auto large = Named("h", SandboxMode::kExec);
  large->spec.sandbox.memory_bytes = 101 << 20;
  ASSERT_TRUE(Activate(large).ok());
  auto refused = Call(RequestOf("h"));
  EXPECT_NE(refused->call->FailureText().find("of 100.0 MiB there is no more"), std::string::npos)
      << refused->call->FailureText();
}

TEST_F(RoomTest, TheOldestCallIsServedFirstWhoseverItIs) {
  HoldPrograms();
  for (const char* name : {"f", "g", "h"}) {  // g stands before h in every map
    ASSERT_TRUE(Activate(Named(name, SandboxMode::kExec)).ok());
  }
  std::vector<std::string> order;
  auto first = Begin(RequestOf("f"));
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  std::vector<std::unique_ptr<Client>> clients;
  for (const char* name : {"h", "g", "h", "g"}) {
    clients.push_back(std::make_unique<Client>());
    clients.back()->on_head = [&order, name] { order.push_back(name); };
    clients.back()->Start(*dispatcher, RequestOf(name));
    RunFor(milliseconds(2));
  }
  go = true;
  ASSERT_TRUE(RunUntil([&] { return order.size() == 4; }));
  EXPECT_EQ(order, (std::vector<std::string>{"h", "g", "h", "g"}));
}

TEST_F(RoomTest, ABusyServerOfAnotherFunctionIsClosedForACallThatStarves) {
  sandbox->SetHandler([](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      std::this_thread::sleep_for(milliseconds(30));
      c.Reply("x");
    }
  });
  ASSERT_TRUE(Activate(Named("f", SandboxMode::kHttp)).ok());
  ASSERT_TRUE(Activate(Named("g", SandboxMode::kExec)).ok());
  std::vector<std::unique_ptr<Client>> busy;
  busy.push_back(Begin(RequestOf("f")));
  ASSERT_TRUE(RunUntil([&] { return busy[0]->done(); }));
  auto starving = Begin(RequestOf("g"));
  const bool served = RunUntil([&] {  // never a moment without a call
    busy.push_back(Begin(RequestOf("f")));
    return starving->done();
  });
  ASSERT_TRUE(served);
  EXPECT_EQ(starving->outcome(), "ok");
  for (auto& client : busy) {
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    EXPECT_TRUE(client->outcome() == "ok" || client->outcome() == "rejected:queue-full")
        << client->outcome();
  }
}

TEST_F(RoomTest, AFullLauncherCostsTheLeastCalledFunctionItsSpawner) {
  sandbox->most_spawners = 1;
  Restore(Named("f", SandboxMode::kExec));
  Restore(Named("g", SandboxMode::kExec));
  for (const char* name : {"f", "g", "f"}) {
    auto client = Call(RequestOf(name));
    EXPECT_EQ(client->outcome(), "ok") << client->call->FailureText();
  }
  EXPECT_EQ(sandbox->spawners, 1);
}

TEST_F(RoomTest, AFullDiskCostsNobodyASpawner) {
  for (const char* name : {"f", "g"}) {
    ASSERT_TRUE(Activate(Named(name, SandboxMode::kExec)).ok());
    EXPECT_EQ(Call(RequestOf(name))->outcome(), "ok");
  }
  Restore(Named("h", SandboxMode::kExec));
  sandbox->build_error = "write skeleton: No space left on device";
  sandbox->build_error_code = Code::kNoSpace;
  sandbox->build_errno = ENOSPC;
  EXPECT_EQ(Call(RequestOf("h"))->outcome(), "setup-failed:build-version");
  RunFor(milliseconds(50));
  EXPECT_EQ(sandbox->spawners, 2);
}

TEST_F(RoomTest, ACallWaitsForAPlaceWhileEverybodyIsBusy) {
  sandbox->most_spawners = 1;
  HoldPrograms();
  Restore(Named("f", SandboxMode::kExec));
  Restore(Named("g", SandboxMode::kExec));
  auto first = Begin(RequestOf("f"));
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  auto second = Begin(RequestOf("g"));
  RunFor(milliseconds(30));
  EXPECT_FALSE(second->done());
  go = true;
  ASSERT_TRUE(RunUntil([&] { return first->done() && second->done(); }));
  EXPECT_EQ(second->outcome(), "ok");
}

TEST_F(RoomTest, WhatIsOutOfItsTimeIsReclaimedWhereThereIsSwap) {
  sandbox->reclaim_error.clear();
  config.idle = milliseconds(50);
  Restart();
  auto version = Named("f", SandboxMode::kHttp);
  version->spec.scale.freeze_after = Duration::zero();
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(RequestOf("f"))->outcome(), "ok");
  ASSERT_TRUE(RunUntil([&] { return Step("f") == "reclaimed"; }));
  EXPECT_EQ(dispatcher->Totals().memory_used_bytes,
            sandbox->reclaimed.after_bytes + sandbox->reclaimed.zram_bytes);
  auto client = Call(RequestOf("f"));
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_EQ(client->call->receipt().start, StartKind::kReclaimed);
}

TEST_F(RoomTest, AMinimumIsWokenByWhatNoWaitingCallCanHave) {
  dispatcher.reset();
  standing.starts = [this] { return sandbox->starts.load(); };
  dispatcher = Dispatcher::Create(config, *loop, standing, *sandbox, logs);
  std::atomic<bool> first_ends = false;
  std::atomic<int> programs = 0;
  sandbox->program = [&](FakeProgram&) {
    const bool first = programs++ == 0;
    while (!go && !(first && first_ends)) std::this_thread::sleep_for(milliseconds(1));
    return Exited(0);
  };
  for (const char* name : {"f", "g", "h", "i"}) {
    auto version = Named(name, SandboxMode::kExec);
    version->spec.sandbox.memory_bytes = (*name == 'f' ? 36ULL : 64ULL) << 20;
    ASSERT_TRUE(Activate(version).ok());
  }
  auto first = Begin(RequestOf("f"));
  ASSERT_TRUE(RunUntil([&] { return programs == 1; }));
  auto second = Begin(RequestOf("g"));
  ASSERT_TRUE(RunUntil([&] { return programs == 2; })) << "and now all memory is taken";
  auto waits = Begin(RequestOf("h"));
  FunctionKey promised = key;
  promised.name = "i";
  ASSERT_TRUE(dispatcher->Scale(promised, 2).ok());
  RunFor(milliseconds(20));
  EXPECT_EQ(Step("i"), "");
  first_ends = true;  // 36 MiB: too little for the call
  ASSERT_TRUE(RunUntil([&] { return Of("i").instances.size() == 2; }));
  EXPECT_FALSE(waits->done());
  go = true;
  ASSERT_TRUE(RunUntil([&] { return second->done() && waits->done(); }));
  EXPECT_EQ(waits->outcome(), "ok");
}

// One place is on its way to be free, slowly, and two wait: the second one's is made at once.
TEST_F(RoomTest, APlaceIsMadeForWhomNoneIsOnItsWay) {
  config.max_instances = 3;
  config.memory_budget_bytes = 1ULL << 30;
  Restart();
  HoldPrograms();
  auto idle = Named("f", SandboxMode::kHttp);
  idle->spec.scale.freeze_after = kNeverFreeze;
  ASSERT_TRUE(Activate(idle).ok());
  for (const char* name : {"g", "h", "i", "j"}) {
    ASSERT_TRUE(Activate(Named(name, SandboxMode::kExec)).ok());
  }
  EXPECT_EQ(Call(RequestOf("f"))->outcome(), "ok");
  auto leaves = Begin(RequestOf("g"));
  auto stays = Begin(RequestOf("h"));
  ASSERT_TRUE(RunUntil([&] { return Step("g") == "busy" && Step("h") == "busy"; }));
  leaves->Leave();
  ASSERT_TRUE(RunUntil([&] { return Step("g") == "draining"; }));
  auto next = Begin(RequestOf("i"));
  RunFor(milliseconds(20));
  EXPECT_EQ(Step("f"), "warm") << "it waits for the place that is on its way";
  auto second = Begin(RequestOf("j"));
  ASSERT_TRUE(RunUntil([&] { return Step("f").empty(); }));
  ASSERT_TRUE(RunUntil([&] { return Step("i") == "busy"; }));
  go = true;
  ASSERT_TRUE(RunUntil([&] { return stays->done() && next->done() && second->done(); }));
  EXPECT_EQ(second->outcome(), "ok");
}

// A frozen server's call waits for the rest of its memory, behind one that needs what it holds.
TEST_F(RoomTest, WhoStarvesGetsWhatACallBehindItHopesFor) {
  dispatcher.reset();
  std::atomic<int> tenths = 0;
  standing.starts = [&] { return tenths.load(); };
  dispatcher = Dispatcher::Create(config, *loop, standing, *sandbox, logs);
  sandbox->memory_bytes = 50 << 20;
  HoldPrograms();
  auto server = Named("f", SandboxMode::kHttp);
  server->spec.scale.freeze_after = Duration::zero();
  ASSERT_TRUE(Activate(server).ok());
  ASSERT_TRUE(Activate(Named("g", SandboxMode::kExec)).ok());
  auto small = Named("h", SandboxMode::kExec);
  small->spec.sandbox.memory_bytes = 50 << 20;
  ASSERT_TRUE(Activate(small).ok());
  EXPECT_EQ(Call(RequestOf("f"))->outcome(), "ok");
  ASSERT_TRUE(RunUntil([&] { return Step("f") == "frozen"; }));
  auto holds = Begin(RequestOf("h"));
  ASSERT_TRUE(RunUntil([&] { return Step("h") == "busy"; })) << "now all memory is taken";
  auto starves = Begin(RequestOf("g"));
  auto behind = Begin(RequestOf("f"));
  RunFor(milliseconds(20));
  EXPECT_EQ(Step("f"), "frozen");
  tenths = 20;  // its patience is over
  go = true;
  EXPECT_TRUE(RunUntil([&] { return starves->done() && behind->done() && holds->done(); }));
}

TEST_F(RoomTest, KeepsItsPromisesOnARandomBoard) {
  std::mt19937 random(7);
  config.memory_budget_bytes = 200 << 20;
  config.max_instances = 12;
  Restart();
  std::atomic<int> turn = 0;
  sandbox->program = [&](FakeProgram&) {
    std::this_thread::sleep_for(milliseconds(turn++ % 3));
    return Exited(0);
  };
  const auto deploy = [&](int f) {
    auto version =
        Named("f" + std::to_string(f), f % 2 == 0 ? SandboxMode::kHttp : SandboxMode::kExec);
    version->concurrency = f % 2 == 0 ? 2 : 1;
    version->spec.sandbox.memory_bytes = (20ULL + 10 * (f % 5)) << 20;
    version->spec.scale.max = 2;
    version->spec.scale.parked = f % 3;
    version->spec.scale.queue = 1000;
    version->spec.scale.freeze_after = milliseconds(f % 4 * 3);
    return version;
  };
  for (int f = 0; f < 8; ++f) Restore(deploy(f));
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 1200; ++i) {
    const int f = static_cast<int>(random() % 8);
    clients.push_back(Begin(RequestOf("f" + std::to_string(f))));
    if (random() % 100 == 0) Restore(deploy(f));
    if (random() % 20 == 0) clients[random() % clients.size()]->Leave();
    if (random() % 4 == 0) loop->RunOnce(milliseconds(1));
    EXPECT_LE(dispatcher->Totals().memory_used_bytes, 200U << 20);
    EXPECT_LE(dispatcher->Totals().instances, 12U);
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    if (clients[i]->call == nullptr) continue;
    ASSERT_TRUE(RunUntil([&] { return clients[i]->done(); })) << i << " starves";
    EXPECT_EQ(clients[i]->outcome(), "ok");
    EXPECT_LE(dispatcher->Totals().memory_used_bytes, 200U << 20);
  }
  EXPECT_LE(sandbox->max_running, 8);
}

}  // namespace
}  // namespace pulga
