// Exec mode through a real launcher and spawner: what the program sees, and how its end is told.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class LauncherExec : public LauncherTest {};

TEST_F(LauncherExec, RunsAProgramWithItsArgumentsEnvironmentAndInput) {
  Build(world_.Spec({"/echo"}));
  const RunResult run = world_.Run(*spawner_, events_, {}, "flea in the ear\n");
  EXPECT_EQ(run.out, "flea in the ear\n") << run.err << run.exit.setup_step;
  EXPECT_EQ(run.exit.wait_status, 0);
}

TEST_F(LauncherExec, GivesTheVersionsAndTheRequestsEnvironment) {
  Build(world_.Spec());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"env"};
  options.extra_env = {"Http_Method=GET"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  char text[4096];
  const ssize_t n = read(stdio.out.get(), text, sizeof text);
  const std::string env(text, static_cast<size_t>(n > 0 ? n : 0));
  EXPECT_THAT(env, HasSubstr("GREETING=hello"));
  EXPECT_THAT(env, HasSubstr("Http_Method=GET"));
  EXPECT_THAT(env, HasSubstr("PATH=/usr/local/sbin"));
  EXPECT_THAT(env, HasSubstr("HOME=/root"));
}

TEST_F(LauncherExec, TellsTheExitCode) {
  const RunResult run = Probe({"exit", "7"});
  EXPECT_TRUE(WIFEXITED(run.exit.wait_status) && WEXITSTATUS(run.exit.wait_status) == 7)
      << run.exit.setup_step << " " << strerror(run.exit.sys_errno);
  EXPECT_EQ(run.exit.setup_step, "");
  EXPECT_FALSE(run.exit.oom_killed);
}

TEST_F(LauncherExec, TellsTheTrueSignalOfAnAbort) {
  const RunResult run = Probe({"signal", "6"});
  EXPECT_TRUE(WIFSIGNALED(run.exit.wait_status));
  EXPECT_EQ(WTERMSIG(run.exit.wait_status), SIGABRT);
}

TEST_F(LauncherExec, TellsASegmentationFault) {
  const RunResult run = Probe({"segv"});
  EXPECT_EQ(WTERMSIG(run.exit.wait_status), SIGSEGV);
}

TEST_F(LauncherExec, TellsThatMemoryWasTheReason) {
  VersionSpec spec = world_.Spec();
  spec.limits.memory_bytes = 8 << 20;
  Build(spec);
  const RunResult run = world_.Run(*spawner_, events_, {"oom"});
  EXPECT_TRUE(run.exit.oom_killed);
  EXPECT_TRUE(WIFSIGNALED(run.exit.wait_status));
  EXPECT_GT(run.exit.memory_peak_bytes, 4U << 20);
  const RunResult next = world_.Run(*spawner_, events_, {"exit", "0"});
  EXPECT_FALSE(next.exit.oom_killed) << "the slot's counters carry over";
}

TEST_F(LauncherExec, WakesAParkedProgramOfAVersionWithManySlotsAndFewFiles) {
  VersionSpec spec = world_.Spec();
  spec.slots = 32;  // the spawner holds several fds for each
  spec.limits.nofile = 32;
  Build(spec);
  const RunResult run = world_.RunParked(*spawner_, events_, {"say", "awake"});
  EXPECT_EQ(run.exit.setup_step, "");
  EXPECT_THAT(run.out, HasSubstr("awake"));
}

TEST_F(LauncherExec, RunsAParkedProgramWithItsRequest) {
  Build(world_.Spec());
  const RunResult run = world_.RunParked(*spawner_, events_, {"say", "awake;", "exit", "3"});
  EXPECT_THAT(run.out, HasSubstr("awake"));
  EXPECT_EQ(WEXITSTATUS(run.exit.wait_status), 3);
  const SlotTimes times = spawner_->Times(0);
  EXPECT_LT(times.begun, times.ready);
  EXPECT_LT(times.ready, times.exec);
  EXPECT_GT(times.steps.front(), Duration::zero());
  EXPECT_TRUE(std::is_sorted(times.steps.begin(), times.steps.end()));
  EXPECT_LE(times.begun + times.steps.back(), times.ready);
}

TEST_F(LauncherExec, ReusesASlotManyTimes) {
  Build(world_.Spec());
  for (int i = 0; i < 50; ++i) {
    const RunResult run = i % 2 == 0
                              ? world_.Run(*spawner_, events_, {"exit", std::to_string(i)})
                              : world_.RunParked(*spawner_, events_, {"exit", std::to_string(i)});
    ASSERT_EQ(WEXITSTATUS(run.exit.wait_status), i) << run.exit.setup_step;
  }
}

TEST_F(LauncherExec, EndsAnInstanceBySignal) {
  Build(world_.Spec());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"say", "up;", "sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  std::string said;
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "up"));
  ASSERT_TRUE(spawner_->Signal(0, SIGTERM).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_EQ(WTERMSIG(events_.exits[0].wait_status), SIGTERM);
}

TEST_F(LauncherExec, KillsWhatIgnoresToStop) {
  Build(world_.Spec());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"ignore-term", "0;", "say", "deaf;", "sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  std::string said;
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "deaf"));
  ASSERT_TRUE(spawner_->Signal(0, SIGTERM).ok());
  EXPECT_TRUE(spawner_->Signal(0, SIGKILL).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_EQ(WTERMSIG(events_.exits[0].wait_status), SIGKILL);
}

TEST_F(LauncherExec, EndsWithTheProgramWhateverItLeavesRunning) {
  const RunResult run = Probe({"orphan"});
  EXPECT_TRUE(run.ended);
  EXPECT_TRUE(WIFEXITED(run.exit.wait_status));
}

TEST_F(LauncherExec, TellsADeathBySeccomp) {
  const RunResult run = Probe({"sigsys"});
  EXPECT_EQ(WTERMSIG(run.exit.wait_status), SIGSYS);
}

}  // namespace
}  // namespace pulga::testing
