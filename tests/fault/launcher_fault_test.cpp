// A launcher's whole life, from its start to its end, in http mode, with the n-th system call of
// each of its processes failing: each time an error that names its step, never a program half
// confined, and nothing left behind. version_fault_test has the calls of all processes in one row,
// in exec mode.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/sys.h"
#include "sandbox/build_report.h"
#include "sandbox/launcher.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::IsEmpty;

constexpr int kQuietRounds = 12;  // that many successes in a row: no call is left to fail
constexpr int kMostCalls = 1500;

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
    CloseAllBut({options.socket.get(), options.layers.get()});
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
      EXPECT_TRUE(client.AdoptLauncher(std::move(socket)).ok());
      fine = BuildAndRun(client, spec);
    }
    int status = 0;
    EXPECT_EQ(waitpid(launcher, &status, 0), launcher);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "call " << n << ": " << status;
    EXPECT_THAT(world_.Leftovers(), IsEmpty()) << "call " << n;
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    return fine;
  }

  bool BuildAndRun(LauncherClient& client, const VersionSpec& spec) {
    Recorder events;
    std::unique_ptr<Spawner> spawner;
    Status built;
    bool answered = false;
    client.BuildVersion(spec, events, [&](Result<std::unique_ptr<Spawner>> result) {
      answered = true;
      built = Status(result);
      if (result.ok()) spawner = std::move(*result);
    });
    EXPECT_TRUE(world_.Until([&] { return answered; }));
    if (spawner == nullptr) {
      EXPECT_FALSE(built.ok() || built.error().message.empty());
      return false;
    }
    Stdio stdio;
    StartOptions options = world_.WithPipes(stdio);
    options.extra_args = {"status"};
    const Status started = spawner->Start(0, std::move(options));
    if (!started.ok()) return false;
    EXPECT_TRUE(world_.Until([&] { return !events.exits.empty() || !events.gone.empty(); }));
    std::string out(16384, '\0');
    const ssize_t got = read(stdio.out.get(), out.data(), out.size());
    out.resize(got > 0 ? static_cast<size_t>(got) : 0);
    if (!out.empty()) {  // it ran: then confined
      EXPECT_EQ(StatusField(out, "Seccomp"), "2");
      EXPECT_EQ(StatusField(out, "CapBnd"), "0000000000000000");
      EXPECT_EQ(StatusField(out, "NoNewPrivs"), "1");
    }
    if (events.exits.empty()) return false;
    const InstanceExit& exit = events.exits[0];
    EXPECT_TRUE(exit.setup_step.empty() || exit.sys_errno != 0) << exit.setup_step;
    EXPECT_TRUE(exit.setup_step.empty() || out.empty()) << "it ran though set-up failed";
    return exit.setup_step.empty() && exit.wait_status == 0;
  }

  void Sweep(int sys_errno, const VersionSpec& spec) {
    int quiet = 0;
    int n = 1;
    for (; n < kMostCalls && quiet < kQuietRounds && !HasFailure(); ++n) {
      quiet = Round(n, sys_errno, spec) ? quiet + 1 : 0;
    }
    EXPECT_LT(n, kMostCalls);
    EXPECT_GT(n, 60 + kQuietRounds) << "hardly anything was ever failed";
  }

  LauncherWorld world_;
};

TEST_F(LauncherFaults, AWholeLifeInHttpModeSurvivesEveryFailingCall) {
  VersionSpec spec = world_.Spec();
  spec.mode = SandboxMode::kHttp;
  Sweep(ENOMEM, spec);
}

}  // namespace
}  // namespace pulga::testing
