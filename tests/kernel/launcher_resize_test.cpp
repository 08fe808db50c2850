// Limits that change while instances live: never above what the build allowed, felt by those that
// run and those to come; and what tells how much processor a slot used.
#include <sys/wait.h>

#include <cerrno>

#include "base/file_io.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class LauncherResize : public LauncherTest {
 protected:
  void SetUp() override {
    LauncherTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    spec_ = world_.Spec();
    spec_.slots = 2;
    spec_.limits.memory_bytes = 8 << 20;
    spec_.limits.cpu_millis = 200;
    spec_.most = {64 << 20, 800};
    spec_.meter = VersionSpec::Meter::kCpu;
    Build(spec_);
  }
  Status Resize(const InstanceSize& size) {
    return Await([&](auto answer) { spawner_->Resize(size, answer); });
  }
  // One that holds 24 MiB of its 48, and says whether they are as they were.
  void StartHolder(SandboxMode mode, Stdio& stdio) {
    spawner_.reset();
    spec_.version_id = 5;
    spec_.mode = mode;
    spec_.limits.memory_bytes = 48 << 20;
    Build(spec_);
    StartOptions options = world_.WithPipes(stdio);
    options.extra_args = {"hold", "24"};
    ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
    std::string said;
    ASSERT_TRUE(world_.UntilSaid(stdio, said, "held")) << said;
  }
  std::string Answer(Stdio& stdio) {
    std::string said;
    (void)WriteAll(stdio.in.get(), "\n").ok();
    world_.UntilSaid(stdio, said, "\n");
    return said;
  }
  // Eats so much, and says so.
  RunResult Eat(int mib) { return world_.Run(*spawner_, events_, {"oom", std::to_string(mib)}); }

  VersionSpec spec_;
};

TEST_F(LauncherResize, LetsTheNextOnesHaveMoreAndLessAgain) {
  EXPECT_TRUE(Eat(24).exit.oom_killed);
  ASSERT_TRUE(Resize({48 << 20, 200}).ok());
  EXPECT_FALSE(Eat(24).exit.oom_killed);
  EXPECT_TRUE(Eat(60).exit.oom_killed);
  ASSERT_TRUE(Resize({8 << 20, 200}).ok());
  EXPECT_TRUE(Eat(24).exit.oom_killed);
}

TEST_F(LauncherResize, IsFeltByAParkedOne) {
  ASSERT_TRUE(spawner_->Park(1).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.parked.empty(); }));
  ASSERT_TRUE(Resize({48 << 20, 200}).ok());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"oom", "24"};
  ASSERT_TRUE(spawner_->Wake(1, std::move(options)).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_FALSE(events_.exits[0].oom_killed);
}

TEST_F(LauncherResize, NeverKillsOneThatHoldsMoreThanALowerLimit) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartHolder(SandboxMode::kExec, stdio));
  for (const uint64_t mib : {4, 16, 24}) {
    const Status lowered = Resize({mib << 20, 100});
    ASSERT_FALSE(lowered.ok()) << mib;
    EXPECT_EQ(lowered.error().sys_errno, EBUSY) << mib << ": " << lowered.error().message;
  }
  EXPECT_EQ(Answer(stdio), "intact\n");
  EXPECT_TRUE(Resize({32 << 20, 200}).ok()) << "what fits is done";
  EXPECT_TRUE(Resize({48 << 20, 200}).ok());
  EXPECT_EQ(Answer(stdio), "intact\n");
  stdio.in.Reset();
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_FALSE(events_.exits[0].oom_killed);
  EXPECT_FALSE(Eat(24).exit.oom_killed) << "and it was put back";
  EXPECT_TRUE(Resize({8 << 20, 200}).ok()) << "with nobody in the way";
}

TEST_F(LauncherResize, IsDoneToAFrozenOneAndNeverKillsIt) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartHolder(SandboxMode::kHttp, stdio));
  ASSERT_TRUE(world_.Until([&] { return spawner_->Freeze(0).ok(); }));
  const Status lowered = Resize({16 << 20, 200});
  ASSERT_FALSE(lowered.ok());
  EXPECT_EQ(lowered.error().sys_errno, EBUSY);
  EXPECT_TRUE(Resize({32 << 20, 200}).ok());
  EXPECT_TRUE(Resize({64 << 20, 400}).ok());
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  EXPECT_EQ(Answer(stdio), "intact\n");
}

TEST_F(LauncherResize, OfOneThatGoesIsAnsweredAndLeavesTheNextOneAlone) {
  for (int i = 0; i < 10; ++i) {
    int answers = 0;
    for (const int mib : {64, 48}) {  // the second is refused, or does what the first did
      world_.client().Resize(spec_.version_id, {uint64_t(mib) << 20, 800},
                             [&](const Status&) { ++answers; });
    }
    spawner_.reset();
    Build(spec_);
    ASSERT_TRUE(world_.Until([&] { return answers == 2; }));
  }
  EXPECT_TRUE(Eat(24).exit.oom_killed) << "it has what its build said";
}

TEST_F(LauncherResize, NeverGoesAboveWhatTheBuildAllowed) {
  EXPECT_THAT(Resize({(64 << 20) + 1, 200}).error().message, HasSubstr("more memory"));
  EXPECT_THAT(Resize({64 << 20, 801}).error().message, HasSubstr("more cpu"));
  EXPECT_THAT(Resize({64 << 20, 0}).error().message, HasSubstr("neither made nor taken away"));
  EXPECT_TRUE(Eat(24).exit.oom_killed) << "a refusal changes nothing";
  EXPECT_TRUE(Resize({64 << 20, 800}).ok());
}

TEST_F(LauncherResize, HasNoRangeWhereTheBuildAskedForNone) {
  spawner_.reset();
  spec_.version_id = 2;
  spec_.most = {};
  Build(spec_);
  EXPECT_THAT(Resize({9 << 20, 200}).error().message, HasSubstr("more memory"));
  EXPECT_TRUE(Resize({8 << 20, 200}).ok());
}

TEST_F(LauncherResize, IsRefusedOfWhatIsGone) {
  const uint64_t id = spec_.version_id;
  spawner_.reset();
  EXPECT_EQ(Await([&](auto answer) { world_.client().Drop(id, answer); }).ok(), true);
  const Status resized = Await([&](auto answer) {
    world_.client().Resize(id, {8 << 20, 200}, answer);
  });
  EXPECT_EQ(resized.error().code, Code::kNotFound);
}

TEST_F(LauncherResize, TellsTheProcessorASlotUsed) {
  spawner_.reset();
  spec_.version_id = 4;
  spec_.limits.cpu_millis = 20;  // little enough to be had, and used up, on any machine
  Build(spec_);
  ASSERT_TRUE(world_.Until([&] { return spawner_->Cpu(0).has_value(); }));
  const std::optional<InstanceCpu> before = spawner_->Cpu(0);
  world_.Run(*spawner_, events_, {"cpu", "2"});
  const std::optional<InstanceCpu> after = spawner_->Cpu(0);
  EXPECT_GE(after->used - before->used, std::chrono::milliseconds(5));
  EXPECT_GT(after->throttled, before->throttled);
  EXPECT_EQ(spawner_->Cpu(77), std::nullopt);
}

TEST_F(LauncherResize, TellsNoProcessorUseOfAVersionThatIsNotMetered) {
  spawner_.reset();
  spec_.version_id = 3;
  spec_.meter = VersionSpec::Meter::kNone;
  Build(spec_);
  EXPECT_EQ(spawner_->Cpu(0), std::nullopt);
}

}  // namespace
}  // namespace pulga::testing
