// A launcher's whole life, from its start to its end, in http mode, with the n-th system call of
// each of its processes failing: each time an error that names its step, never a program half
// confined, and nothing left behind. version_fault_test has the calls of all processes in one row,
// in exec mode.
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <tuple>

#include "base/file_io.h"
#include "base/process.h"
#include "base/sys.h"
#include "sandbox/launcher.h"
#include "tests/fault/launcher_life.h"

namespace pulga::testing {
namespace {

using ::testing::IsEmpty;

constexpr int kQuietRounds = 12;  // that many successes in a row: no call is left to fail
constexpr int kMostCalls = 1500;
#if defined(__SANITIZE_ADDRESS__)
constexpr int kNetworkStep = 3;  // three programs a round, each of them slow
#else
constexpr int kNetworkStep = 1;
#endif

std::string BinDir() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
}

class LauncherFaults : public ::testing::Test {
 protected:
  void SetUp() override { PULGA_NEEDS_ROOT(); }

  // A launcher whose n-th call, or that of any child it forks, fails.
  pid_t StartFaulty(int n, int sys_errno, UniqueFd& daemons_end) {
    auto sockets = std::move(MessageSocket::Pair()).value();
    daemons_end = sockets.second.TakeFd();
    const pid_t pid = fork();
    if (pid != 0) return pid;
    LauncherOptions options;
    options.socket = sockets.first.TakeFd();
    options.layers = std::move(OpenFile(world_.data() + "/layers", O_RDONLY | O_DIRECTORY)).value();
    options.tree_name = world_.tree();
    options.netadmin.Reset(open((BinDir() + "/pulga-netadmin").c_str(), O_PATH | O_CLOEXEC));
    options.router.Reset(open((BinDir() + "/pulga-router").c_str(), O_PATH | O_CLOEXEC));
    CloseAllBut(
        {options.socket.get(), options.layers.get(), options.netadmin.get(), options.router.get()});
    auto loop = std::move(EventLoop::Create()).value();
    auto launcher = Launcher::Create(*loop, std::move(options));
    if (!launcher.ok()) _exit(3);
    sys::FailNthCall(n, sys_errno);
    loop->Run();
    sys::FailNthCall(0, 0);
    (*launcher)->Shutdown();
    _exit(0);
  }

  // One round; true when everything went well.
  bool Round(int n, int sys_errno, const VersionSpec& spec) {
    UniqueFd socket;
    const pid_t launcher = StartFaulty(n, sys_errno, socket);
    bool fine = false;
    {
      LauncherClient client(world_.loop());
      client.SetNetwork({{{0x0A530000}, 16}, {8080}}, [](UniqueFd) {});
      EXPECT_TRUE(client.AdoptLauncher(std::move(socket)).ok());
      const Life life = LiveOnce(world_, client, spec);
      CheckLife(life, "call " + std::to_string(n));
      fine = life.fine();
    }
    int status = 0;
    EXPECT_EQ(waitpid(launcher, &status, 0), launcher);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "call " << n << ": " << status;
    EXPECT_THAT(world_.Leftovers(), IsEmpty()) << "call " << n;
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    return fine;
  }

  // Every `step`-th call.
  void Sweep(int sys_errno, const VersionSpec& spec, int step = 1) {
    int quiet = 0;
    int n = 1;
    for (; n < kMostCalls && quiet < kQuietRounds && !HasFailure(); n += step) {
      quiet = Round(n, sys_errno, spec) ? quiet + 1 : 0;
    }
    EXPECT_LT(n, kMostCalls);
    EXPECT_GT(n, 60 + kQuietRounds) << "hardly anything was ever failed";
  }

  LauncherWorld world_;
};

TEST_F(LauncherFaults, AWholeLifeWithOutboundNetworkSurvivesEveryFailingCall) {
  ASSERT_EQ(unshare(CLONE_NEWNET), 0);  // nothing of the machine's is looked at, or for
  VersionSpec spec = world_.Spec();
  spec.access.network.mode = NetworkMode::kEgress;
  Sweep(ENOMEM, spec, kNetworkStep);
}

// The spawner waits for it: a third instance needs a namespace that the launcher has attached.
class StoppedLauncher : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    const int done =
        sys::Seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, nullptr);
    if (done >= 0 || errno != EFAULT) GTEST_SKIP() << "before Linux 5.0";
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
    std::tie(launcher_, socket_) = world_.StartBareLauncher();
  }
  void Flood(Spawner& spawner, uint16_t slot) {
    StartOptions options = world_.WithPipes(stdio_[slot]);
    options.extra_args = {"refused", "1000000000"};
    ASSERT_TRUE(spawner.Start(slot, std::move(options)).ok());
  }
  LauncherWorld world_;
  PidFd launcher_;
  MessageSocket socket_;
  Stdio stdio_[3];
};

TEST_F(StoppedLauncher, LeavesNobodyWaitingForTheRefusalOfACall) {
  constexpr uint32_t kMany = 2000;  // not answered within the moment before the spawner waits
  Recorder events;
  std::unique_ptr<Spawner> spawner;
  {
    LauncherClient client(world_.loop());
    client.SetNetwork({{{0x0A530000}, 16}, {8080}}, [](UniqueFd) {});
    ASSERT_TRUE(client.AdoptLauncher(socket_.TakeFd()).ok());
    VersionSpec spec = world_.Spec();
    spec.mode = SandboxMode::kHttp;
    spec.access.network.mode = NetworkMode::kEgress;
    spec.slots = 3;
    bool answered = false;
    client.BuildVersion(spec, events, [&](Result<std::unique_ptr<Spawner>> built) {
      answered = true;
      ASSERT_TRUE(built.ok()) << built.error().message;
      spawner = std::move(*built);
    });
    ASSERT_TRUE(world_.Until([&] { return answered; }));
    ASSERT_NE(spawner, nullptr);
    uint32_t refused = 0;
    const auto count = [&] {
      for (const RefusedCount& more : spawner->TakeRefusals()) refused += more.count;
      return refused;
    };
    Flood(*spawner, 0);
    ASSERT_TRUE(world_.Until([&] { return count() > 0; }));
    ASSERT_TRUE(launcher_.Signal(SIGSTOP).ok());
    Flood(*spawner, 1);
    Flood(*spawner, 2);
    refused = 0;
    world_.Until([&] { return count() > kMany || !events.exits.empty(); });
    EXPECT_GT(refused, kMany);
    EXPECT_THAT(events.exits, IsEmpty()) << "the spawner has given up waiting";
    ASSERT_TRUE(launcher_.Signal(SIGCONT).ok());
    spawner.reset();
  }
  EXPECT_TRUE(launcher_.Reap().ok());
  EXPECT_THAT(world_.Leftovers(), IsEmpty());
}

TEST_F(LauncherFaults, AWholeLifeInHttpModeSurvivesEveryFailingCall) {
  VersionSpec spec = world_.Spec();
  spec.mode = SandboxMode::kHttp;
  Sweep(ENOMEM, spec);
}

}  // namespace
}  // namespace pulga::testing
