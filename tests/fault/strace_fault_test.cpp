// The real launcher, its set-up children, spawners, instances and janitors from outside: strace
// makes the n-th call of a set fail, or kills at it, in each of these processes, for n = 1, 2, 3
// ... until nobody has an n-th call left. After each: an error that names its step, never a program
// half confined, and nothing left behind but what the next launcher removes when the first was
// killed. Finds the calls that miss PULGA_SYS too, those of libc among them. Needs: root, strace.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "base/file_io.h"
#include "base/text.h"
#include "tests/fault/launcher_life.h"
#include "tests/fault/strace_log.h"

namespace pulga::testing {
namespace {

using ::testing::IsEmpty;

constexpr Set kMounts = {"mounts", "mount,umount2,pivot_root", "EPERM", EPERM};
constexpr Set kNamespaces = {"namespaces", "unshare,setns,?fork,?vfork,clone,clone3", "ENOSPC",
                             ENOSPC};
constexpr Set kPrivileges = {
    "privileges",
    "setresuid,setresgid,setgroups,capset,prctl,seccomp,?setrlimit,prlimit64,sethostname,keyctl",
    "EPERM", EPERM};
constexpr Set kFiles = {"files", "?open,openat,openat2", "EMFILE", EMFILE, 3};
constexpr Set kTrees = {"trees",
                        "?mkdir,mkdirat,?mknod,mknodat,?symlink,symlinkat,?chown,fchown,fchownat,"
                        "?chmod,fchmod,fchmodat,chdir,fchdir,?rmdir,?unlink,unlinkat,ftruncate",
                        "EIO", EIO};
constexpr Set kDescriptors = {"descriptors",
                              "pipe2,socketpair,socket,?dup2,dup3,memfd_create,eventfd2,signalfd4,"
                              "epoll_create1,epoll_ctl,ioctl,pidfd_open,close_range",
                              "EMFILE", EMFILE};
constexpr Set kMessages = {"messages", "sendmsg,recvmsg,sendto,write,read", "EIO", EIO};

class StraceFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    if (access(kStrace, X_OK) != 0) PULGA_SKIP("no strace: see scripts/setup");
  }

  std::string log() const { return world_.data() + "/strace.log"; }

  // What a keeper does after a launcher that did not end well: the next one sweeps.
  void RunAnother() {
    auto [process, socket] = world_.StartBareLauncher();
    socket = MessageSocket();
    EXPECT_TRUE(process.Reap().ok());
  }

  // One life; false when there was no call left to touch.
  bool Round(const Set& set, const std::string& what, int n) {
    const std::string where = std::string(set.name) + " call " + std::to_string(n) + " " + what;
    const std::string calls = set.calls;
    auto [launcher, socket] =
        world_.StartBareLauncher({{kStrace, "-f", "-qq", "-o", log(), "-e", "trace=" + calls, "-e",
                                   "inject=" + calls + ":" + what + ":when=" + std::to_string(n)}});
    Life life;
    {
      LauncherClient client(world_.loop());
      EXPECT_TRUE(client.AdoptLauncher(socket.TakeFd()).ok());
      life = LiveOnce(world_, client, spec_);
    }
    CheckLife(life, where);
    const auto end = launcher.Reap();
    EXPECT_TRUE(end.ok());
    clean_ends_ += end->wait_status == 0;
    if (end->wait_status != 0) RunAnother();
    EXPECT_TRUE(world_.Until([&] { return world_.Leftovers().empty(); }));
    EXPECT_THAT(world_.Leftovers(), IsEmpty()) << where;
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    Count(life, set);
    return Touched(std::move(ReadFile(log(), 64 << 20)).value(), n);
  }

  void Count(const Life& life, const Set& set) {
    if (!life.built.ok()) {
      ++failed_builds_;
      named_errnos_ += life.built.error().sys_errno == set.sys_errno;
    } else if (!life.exit.setup_step.empty()) {
      ++failed_starts_;
      named_errnos_ += life.exit.sys_errno == set.sys_errno;
    }
  }

  void Sweep(const Set& set, const std::string& what) {
    int step = set.step;
    if (const char* wanted = getenv("PULGA_SWEEP_STEP")) step = std::max(1, atoi(wanted));
    int n = 1;
    for (; n < kMostCalls && !HasFailure(); n += step) {
      if (!Round(set, what, n)) break;
    }
    EXPECT_LT(n, kMostCalls);
    RecordProperty("calls", n);
    fprintf(stderr, "%s, %s: %d calls, %d builds and %d starts failed, %d told the errno\n",
            set.name, what.c_str(), n, failed_builds_, failed_starts_, named_errnos_);
  }

  LauncherWorld world_;
  VersionSpec spec_ = world_.Spec();
  int failed_builds_ = 0, failed_starts_ = 0, named_errnos_ = 0, clean_ends_ = 0;
};

// A change of ids makes the kernel forget that a process dies with its parent. Of whoever clones
// for its parent (a set-up) the last of these calls is the one that says so again.
TEST_F(StraceFaults, ASetUpDiesWithItsLauncherToTheEnd) {
  auto [launcher, socket] = world_.StartBareLauncher(
      {{kStrace, "-f", "-qq", "-o", log(), "-e", "trace=setresuid,prctl,clone,clone3"}});
  {
    LauncherClient client(world_.loop());
    EXPECT_TRUE(client.AdoptLauncher(socket.TakeFd()).ok());
    CheckLife(LiveOnce(world_, client, spec_), "traced");
  }
  EXPECT_TRUE(launcher.Reap().ok());
  EXPECT_TRUE(world_.Until([&] { return world_.Leftovers().empty(); }));
  std::map<std::string, std::string> last;  // by pid
  std::set<std::string> set_ups;
  const std::string text = std::move(ReadFile(log(), 64 << 20)).value();
  for (const std::string_view line : Split(text, '\n')) {
    const std::string pid(line.substr(0, line.find(' ')));
    if (line.find("CLONE_PARENT") != line.npos) set_ups.insert(pid);
    const bool dies = line.find("PR_SET_PDEATHSIG, SIGKILL") != line.npos;
    if (dies || line.find("setresuid(") != line.npos) last[pid] = dies ? "dies" : "forgets";
  }
  EXPECT_FALSE(set_ups.empty());
  for (const std::string& pid : set_ups) EXPECT_EQ(last[pid], "dies") << text;
}

class FailingCalls : public StraceFaults, public ::testing::WithParamInterface<Set> {};

TEST_P(FailingCalls, LeaveNothingAndAreToldByStep) {
  const Set& set = GetParam();
  Sweep(set, std::string("error=") + set.error);
  EXPECT_GT(failed_builds_ + failed_starts_, 0);
}

INSTANTIATE_TEST_SUITE_P(Strace, FailingCalls,
                         ::testing::Values(kMounts, kNamespaces, kPrivileges, kFiles, kTrees,
                                           kDescriptors, kMessages),
                         NameOfSet);

// strace counts in each process by itself, so that a build fails before its instances are reached:
// here it attaches to a spawner that is ready.
class FailingStarts : public StraceFaults, public ::testing::WithParamInterface<Set> {
 protected:
  void SetUp() override {
    StraceFaults::SetUp();
    if (!IsSkipped()) world_.StartLauncher();
  }
  void TearDown() override {
    if (IsSkipped()) return;
    spawner_.reset();
    world_.StopLauncher();
    EXPECT_THAT(world_.Leftovers(), IsEmpty());
  }
  void BuildAnew() {
    spawner_.reset();
    ASSERT_TRUE(world_.Until([&] { return ChildrenOfLauncher().empty(); }));
    events_ = Recorder();
    ++spec_.version_id;
    spawner_ = world_.Build(spec_, events_);
    ASSERT_NE(spawner_, nullptr) << world_.error.error().message;
    // The set-up child has gone by then.
    ASSERT_TRUE(world_.Until([&] { return ChildrenOfLauncher().size() == 1; }));
  }
  std::vector<std::string> ChildrenOfLauncher() const {
    const std::string launcher = std::to_string(world_.launcher_pid());
    std::ifstream in("/proc/" + launcher + "/task/" + launcher + "/children");
    return {std::istream_iterator<std::string>(in), {}};
  }
  PidFd Attach(const Set& set, int n) {
    const std::string calls = set.calls;
    const std::string injection = std::string(":error=") + set.error + ":when=";
    const std::string spawner = ChildrenOfLauncher().at(0);
    SpawnOptions spawn;
    spawn.argv = {kStrace,
                  "-f",
                  "-qq",
                  "-o",
                  log(),
                  "-p",
                  spawner,
                  "-e",
                  "trace=" + calls,
                  "-e",
                  "inject=" + calls + injection + std::to_string(n)};
    spawn.fds = {{0, 0}, {1, 1}, {2, 2}};
    PidFd strace = std::move(SpawnProcess(spawn)).value();
    EXPECT_TRUE(world_.Until([&] {
      std::ifstream in("/proc/" + spawner + "/status");
      const std::string status(std::istreambuf_iterator<char>(in), {});
      return StatusField(status, "TracerPid") != "0";
    }));
    return strace;
  }
  // One start beside an attached strace; false when it touched nothing.
  bool StartOnce(const Set& set, int n) {
    const std::string where = std::string(set.calls) + " call " + std::to_string(n);
    PidFd strace = Attach(set, n);
    Life life;
    RunToEnd(world_, *spawner_, events_, &life);
    CheckLife(life, where);
    if (life.ended && !life.exit.setup_step.empty()) {
      ++failed_starts_;
      EXPECT_EQ(life.exit.sys_errno, set.sys_errno) << where << ": " << life.exit.setup_step;
    }
    (void)strace.Signal(SIGTERM).ok();
    EXPECT_TRUE(strace.Reap().ok());
    return Touched(std::move(ReadFile(log(), 64 << 20)).value(), n);
  }
  Recorder events_;
  std::unique_ptr<Spawner> spawner_;
};

TEST_P(FailingStarts, SayTheStepAndTheErrnoAndRunNothing) {
  // Call by call: the spawner's own mount must not hide its instance's.
  const std::string calls = GetParam().calls;
  int rounds = 0;
  for (const std::string_view name : Split(calls, ',')) {
    const std::string call(name);
    Set one = GetParam();
    one.calls = call.c_str();
    int n = 1;
    for (bool touched = true; touched && !HasFailure(); ++n) {
      if (spawner_ == nullptr || !events_.gone.empty()) BuildAnew();
      ASSERT_NE(spawner_, nullptr);
      touched = StartOnce(one, n);
      ASSERT_LT(n, kMostCalls);
    }
    rounds += n - 1;
  }
  EXPECT_GT(failed_starts_, 0);
  fprintf(stderr, "%s: %d rounds, %d starts failed\n", GetParam().name, rounds, failed_starts_);
}

INSTANTIATE_TEST_SUITE_P(Strace, FailingStarts,
                         ::testing::Values(kMounts, kNamespaces, kPrivileges, kTrees, kDescriptors),
                         NameOfSet);

class KilledAtCalls : public StraceFaults, public ::testing::WithParamInterface<Set> {};

TEST_P(KilledAtCalls, LeaveNothingForTheNextLauncher) { Sweep(GetParam(), "signal=KILL"); }

INSTANTIATE_TEST_SUITE_P(Strace, KilledAtCalls,
                         ::testing::Values(kMounts, kNamespaces, kPrivileges, kTrees, kDescriptors,
                                           kMessages),
                         NameOfSet);

}  // namespace
}  // namespace pulga::testing
