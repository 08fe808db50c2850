// Limits that are ranges, as a pool lives them: raised at pressure where the budget has room, kept
// where the kernel refuses, carried on to the next version, told with their reason.
#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kMi = 1 << 20;

class SizeTest : public testing::CallTest {
 protected:
  std::shared_ptr<Version> Ranged(uint64_t least_mib, uint64_t most_mib) {
    auto version = MakeVersion(SandboxMode::kExec);
    version->spec.least_memory_bytes = least_mib * kMi;
    version->spec.sandbox.memory_bytes = most_mib * kMi;
    version->spec.least_cpu_millis = 100;
    version->spec.sandbox.cpu_millis = 400;
    return version;
  }
  std::unique_ptr<testing::Client> RunOutOfMemory() {
    sandbox->oom = true;
    sandbox->program = [](testing::FakeProgram&) { return testing::Killed(SIGKILL); };
    auto client = Call(Request());
    sandbox->oom = false;
    return client;
  }
  std::shared_ptr<Version> WithBudget(uint64_t mib) {
    config.memory_budget_bytes = mib * kMi;
    Restart();
    auto version = Ranged(32, 96);
    version->spec.scale.max = 3;
    version->spec.scale.parked = 0;
    return version;
  }
  // A call that goes on until its client is gone.
  std::unique_ptr<testing::Client> Hold() {
    const int before = sandbox->starts;
    sandbox->program = [](testing::FakeProgram& program) {
      return testing::Killed(program.WaitForSignal());
    };
    auto client = Begin(Request());
    EXPECT_TRUE(RunUntil([&] { return sandbox->starts > before; }));
    return client;
  }
  bool Told(const std::string& text) {
    for (const Decision& decision : dispatcher->Activity(key).decisions) {
      if (decision.text.find(text) != std::string::npos) return true;
    }
    return false;
  }
  uint64_t MebibytesNow() { return dispatcher->Activity(key).size.memory_bytes / kMi; }
};

TEST_F(SizeTest, BeginsWithTheLeastAndAllowsTheMost) {
  ASSERT_TRUE(Activate(Ranged(32, 256)).ok());
  const VersionSpec& spec = sandbox->specs.back();
  EXPECT_EQ(spec.limits.memory_bytes, 32 * kMi);
  EXPECT_EQ(spec.limits.cpu_millis, 100U);
  EXPECT_EQ(spec.most, (InstanceSize{256 * kMi, 400}));
  EXPECT_EQ(spec.meter, VersionSpec::Meter::kCpu);
  EXPECT_EQ(MebibytesNow(), 32U);
}

TEST_F(SizeTest, DoublesTheMemoryAfterAKillAndSaysWhy) {
  ASSERT_TRUE(Activate(Ranged(32, 256)).ok());
  const auto client = RunOutOfMemory();
  EXPECT_EQ(client->outcome(), "oom-killed");
  EXPECT_NE(client->call->FailureText().find("limit 32.0 MiB"), std::string::npos)
      << client->call->FailureText();
  ASSERT_TRUE(RunUntil([&] { return sandbox->sizes.size() == 1; }));
  EXPECT_EQ(sandbox->sizes[0], (InstanceSize{64 * kMi, 100}));
  EXPECT_EQ(MebibytesNow(), 64U);
  EXPECT_TRUE(Told("raises limits.memory from 32Mi to 64Mi: something was killed at its limit"));
  EXPECT_NE(LogText().find("raises limits.memory"), std::string::npos);
}

TEST_F(SizeTest, NeverPassesTheMostAndSaysSoOnce) {
  ASSERT_TRUE(Activate(Ranged(32, 40)).ok());
  for (int i = 0; i < 3; ++i) {
    RunOutOfMemory();
    ASSERT_TRUE(RunUntil([&] { return !sandbox->sizes.empty(); }));
    RunFor(milliseconds(5));
  }
  EXPECT_EQ(sandbox->sizes.size(), 1U);
  EXPECT_EQ(MebibytesNow(), 40U);
  EXPECT_TRUE(Told("limits.memory is not raised: more is needed, but that is the most"));
}

TEST_F(SizeTest, HandsWhatWasLearnedToTheNextVersion) {
  ASSERT_TRUE(Activate(Ranged(32, 256)).ok());
  RunOutOfMemory();
  ASSERT_TRUE(RunUntil([&] { return sandbox->sizes.size() == 1; }));
  ASSERT_TRUE(Activate(Ranged(16, 48)).ok());
  EXPECT_EQ(sandbox->specs.back().limits.memory_bytes, 48 * kMi) << "within its own range";
}

TEST_F(SizeTest, AsksTheBudgetForThoseThatRun) {
  ASSERT_TRUE(Activate(WithBudget(100)).ok());
  const auto running = Hold();
  EXPECT_EQ(dispatcher->Totals().memory_used_bytes, 32 * kMi);
  RunOutOfMemory();
  ASSERT_TRUE(RunUntil([&] { return sandbox->sizes.size() == 1; }));
  EXPECT_EQ(dispatcher->Totals().memory_used_bytes, 64 * kMi);
}

TEST_F(SizeTest, StaysAsItIsWhereTheBudgetHasNoRoom) {
  ASSERT_TRUE(Activate(WithBudget(100)).ok());
  const auto one = Hold();
  const auto two = Hold();
  RunOutOfMemory();
  ASSERT_TRUE(
      RunUntil([&] { return Told("limits.memory stays at 32Mi: more is needed, but the"); }));
  EXPECT_TRUE(sandbox->sizes.empty());
  EXPECT_EQ(MebibytesNow(), 32U);
  EXPECT_EQ(dispatcher->Totals().memory_used_bytes, 64 * kMi);
}

// Or it would run at 32 MiB for whoever needs no more, and at 64 for nobody.
TEST_F(SizeTest, StaysBelowWhatTheMinimumOfOthersLeaves) {
  const auto ranged = WithBudget(100);
  auto other = MakeVersion(SandboxMode::kHttp);
  other->key.name = "other";
  other->spec.scale.min = 1;
  other->spec.sandbox.memory_bytes = 60 * kMi;
  ASSERT_TRUE(Activate(other).ok());
  ASSERT_TRUE(Activate(ranged).ok());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(RunOutOfMemory()->outcome(), "oom-killed");
  }
  ASSERT_TRUE(RunUntil([&] { return Told("limits.memory stays at 32Mi"); }));
  EXPECT_TRUE(sandbox->sizes.empty());
  const std::string log = LogText();
  EXPECT_EQ(log.find("stays at 32Mi"), log.rfind("stays at 32Mi")) << "told once\n" << log;
  sandbox->program = [](testing::FakeProgram&) { return 0; };
  EXPECT_EQ(Call(Request())->outcome(), "ok");
}

TEST_F(SizeTest, FallsBackToTheLeastWhereOthersWerePromisedTheRoom) {
  ASSERT_TRUE(Activate(WithBudget(100)).ok());
  RunOutOfMemory();
  ASSERT_TRUE(RunUntil([&] { return MebibytesNow() == 64; }));
  auto other = MakeVersion(SandboxMode::kHttp);
  other->key.name = "other";
  other->spec.scale.min = 1;
  other->spec.sandbox.memory_bytes = 60 * kMi;
  ASSERT_TRUE(Activate(other).ok());
  sandbox->program = [](testing::FakeProgram&) { return 0; };
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  EXPECT_EQ(MebibytesNow(), 32U);
  EXPECT_TRUE(Told("lowers limits.memory from 64Mi to 32Mi: the memory budget has no room"));
}

TEST_F(SizeTest, TakesACounterThatCouldNotBeReadForNoUse) {
  ASSERT_TRUE(Activate(Ranged(32, 64)).ok());
  sandbox->program = [](testing::FakeProgram&) {
    std::this_thread::sleep_for(milliseconds(250));
    return 0;
  };
  for (const uint64_t throttled : {1000, 0, 1000}) {
    sandbox->cpu = InstanceCpu{Duration::zero(), throttled};
    if (throttled == 0) sandbox->cpu.reset();
    EXPECT_EQ(Call(Request())->outcome(), "ok");
    sandbox->sizes.clear();  // of the first one's 1000
  }
  RunFor(milliseconds(5));
  EXPECT_TRUE(sandbox->sizes.empty());
}

TEST_F(SizeTest, TellsOnceThatItHasTheMostHoweverOftenThatIsTooLittle) {
  ASSERT_TRUE(Activate(Ranged(32, 40)).ok());
  for (int i = 0; i < 4; ++i) {
    RunOutOfMemory();
    RunFor(milliseconds(2));
    sandbox->program = [](testing::FakeProgram&) { return 0; };
    EXPECT_EQ(Call(Request())->outcome(), "ok");
  }
  const std::string log = LogText();
  EXPECT_NE(log.find("is not raised"), std::string::npos) << log;
  EXPECT_EQ(log.find("is not raised"), log.rfind("is not raised")) << log;
}

TEST_F(SizeTest, KeepsWhatItHasWhenTheKernelRefuses) {
  sandbox->resize_error = "resize: Device or resource busy";
  ASSERT_TRUE(Activate(Ranged(32, 256)).ok());
  RunOutOfMemory();
  ASSERT_TRUE(RunUntil([&] { return Told("the limits stay as they are: resize: Device"); }));
  EXPECT_EQ(MebibytesNow(), 32U);
  RunFor(milliseconds(5));
  EXPECT_LE(dispatcher->Totals().memory_used_bytes, 32 * kMi);
}

TEST_F(SizeTest, OfAFunctionWithoutARangeNothingChanges) {
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kExec)).ok());
  RunOutOfMemory();
  RunFor(milliseconds(5));
  EXPECT_TRUE(sandbox->sizes.empty());
  EXPECT_EQ(sandbox->specs.back().meter, VersionSpec::Meter::kNone);
}

}  // namespace
}  // namespace pulga
