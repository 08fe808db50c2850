// Refused system calls of a version's instances: refused as ever, counted by name, and bounded.
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>

#include "base/sys.h"
#include "sandbox/refusals.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

using Counts = std::map<std::string, uint32_t>;

bool HasListeners() {
  const int done = sys::Seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, nullptr);
  return done < 0 && errno == EFAULT;
}

class LauncherRefusals : public LauncherTest {
 protected:
  // What came since the last time.
  Counts Taken() {
    Counts counts;
    for (const RefusedCount& refused : spawner_->TakeRefusals()) {
      counts[std::string(refused.name)] += refused.count;
    }
    return counts;
  }
  VersionSpec HttpSpec() {
    VersionSpec spec = world_.Spec();
    spec.mode = SandboxMode::kHttp;
    return spec;
  }
  // A probe in slot 0 that goes on after this.
  void Begin(std::vector<std::string> args, const std::string& until) {
    StartOptions options = world_.WithPipes(stdio_);
    options.extra_args = std::move(args);
    ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
    std::string said;
    ASSERT_TRUE(world_.UntilSaid(stdio_, said, until)) << said;
  }
  void Kill() {
    ASSERT_TRUE(spawner_->Signal(0, SIGKILL).ok());
    ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
    EXPECT_EQ(WTERMSIG(events_.exits[0].wait_status), SIGKILL);
  }
  Stdio stdio_;
};

TEST_F(LauncherRefusals, AreCountedByName) {
  if (!HasListeners()) GTEST_SKIP() << "before Linux 5.0";
  const std::string said = Say({"ptrace;", "mount;", "unshare", "net;", "mknod;", "socket", "17",
                                "3", "0;", "setns;", "chroot"});
  for (const char* call :
       {"ptrace-traceme: errno 1\n", "ptrace-attach-1: errno 1\n", "mount: errno 1\n",
        "unshare: errno 1\n", "clone: errno 1\n", "mknod-char: errno 1\n", "socket: errno 97\n",
        "setns: errno 1\n", "chroot: errno 1\n"}) {
    EXPECT_THAT(said, HasSubstr(call));
  }
  Counts counts = Taken();
  const uint32_t nodes = counts["mknod"] + counts["mknodat"];
  EXPECT_EQ(nodes, 2U);
  counts.erase("mknod");
  counts.erase("mknodat");
  EXPECT_THAT(counts,
              ElementsAre(Pair("chroot", 1), Pair("clone", 1), Pair("mount", 1), Pair("ptrace", 2),
                          Pair("setns", 1), Pair("socket", 1), Pair("unshare", 1)));
  EXPECT_THAT(Taken(), IsEmpty()) << "each is told once";
}

// What is said not to exist, set-up itself, and ordinary work.
TEST_F(LauncherRefusals, AreNotAnythingElse) {
  Say({"syscall", "9999;", "status;", "fds;", "say", "fine"});
  EXPECT_EQ(world_.RunParked(*spawner_, events_, {"say", "fine"}).exit.wait_status, 0);
  EXPECT_THAT(Taken(), IsEmpty());
}

TEST_F(LauncherRefusals, OfParkedInstancesAndServersAreCountedToo) {
  if (!HasListeners()) GTEST_SKIP() << "before Linux 5.0";
  Build(world_.Spec());
  EXPECT_THAT(world_.RunParked(*spawner_, events_, {"chroot"}).out, HasSubstr("errno 1\n"));
  EXPECT_THAT(Taken(), ElementsAre(Pair("chroot", 1)));
  spawner_.reset();
  Build(HttpSpec());
  EXPECT_THAT(Say({"chroot"}), HasSubstr("errno 1\n"));
  EXPECT_THAT(Taken(), ElementsAre(Pair("chroot", 1)));
}

TEST_F(LauncherRefusals, StandInTheReport) {
  Build(world_.Spec());
  const std::vector<Feature> layers = spawner_->layers();
  const Feature* log = FindFeature(layers, "seccomp.log");
  ASSERT_NE(log, nullptr);
  EXPECT_EQ(log->state == FeatureState::kPresent, HasListeners()) << log->detail;
  EXPECT_EQ(log->detail.empty(), HasListeners());
}

TEST_F(LauncherRefusals, AreRefusedWhereTheyCannotBeCounted) {
  const std::string tool = ProgramBeside("pretend-old-kernel");
  if (access(tool.c_str(), X_OK) != 0) PULGA_SKIP("a cross build has no pretend-old-kernel");
  world_.StopLauncher();
  // The call that makes a listener; on a kernel without it this changes nothing.
  world_.StartLauncher({{tool, "seccomp+3", "--"}});
  EXPECT_THAT(Say({"ptrace;", "unshare", "net"}), HasSubstr("unshare: errno 1\n"));
  EXPECT_THAT(Taken(), IsEmpty());
  const std::vector<Feature> layers = spawner_->layers();
  const Feature* log = FindFeature(layers, "seccomp.log");
  ASSERT_NE(log, nullptr);
  EXPECT_EQ(log->state, FeatureState::kAbsent);
  EXPECT_THAT(log->detail, HasSubstr("Linux 5.0"));
}

// It is held to a pace that no timer of a loaded machine can make faster.
TEST_F(LauncherRefusals, OfAFloodAreBoundedAndAllCountedAndRefused) {
  if (!HasListeners()) GTEST_SKIP() << "before Linux 5.0";
  constexpr uint32_t kFlood = 1000;
  Build(world_.Spec());
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_THAT(Say({"refused", std::to_string(kFlood)}), HasSubstr("0 answered otherwise"));
  const auto took = std::chrono::steady_clock::now() - begun;
  EXPECT_THAT(Taken(), ElementsAre(Pair("ptrace", kFlood)));
  constexpr uint32_t kPaced = kFlood - AnswerPace::kBurst;
  EXPECT_GE(took, std::chrono::milliseconds(1000 * kPaced / AnswerPace::kPerSecond - 20));
}

TEST_F(LauncherRefusals, OfAFloodKeepNobodyFromEndingIt) {
  Build(world_.Spec());
  Begin({"refused", "1000000000"}, "begins");
  if (HasListeners()) {
    ASSERT_TRUE(world_.Until([&] { return Taken()["ptrace"] > 0; }));
  }
  Kill();
  EXPECT_THAT(Say({"say", "fine"}), HasSubstr("fine")) << "the spawner serves on";
}

TEST_F(LauncherRefusals, WaitThroughAFreezeAndGoOnBehindIt) {
  if (!HasListeners()) GTEST_SKIP() << "before Linux 5.0";
  Build(HttpSpec());
  Begin({"refused", "1000000000"}, "begins");
  ASSERT_TRUE(world_.Until([&] { return Taken()["ptrace"] > 0; }));
  const Status frozen = spawner_->Freeze(0);
  if (!frozen.ok()) PULGA_SKIP(frozen.error().message);
  // Freezing is not waited for, and what was asked before it is still answered.
  ASSERT_TRUE(world_.Until([&] {
    (void)Taken();
    usleep(100'000);
    return Taken().empty();
  })) << "it is not frozen";
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  EXPECT_TRUE(world_.Until([&] { return Taken()["ptrace"] > 0; })) << "it was not answered";
  Kill();
}

}  // namespace
}  // namespace pulga::testing
