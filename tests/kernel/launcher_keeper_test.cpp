// The keeper with a stand-in daemon (a bash script that writes down what it was given).
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/process.h"
#include "base/temp_dir.h"
#include "sandbox/keeper.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

std::string Slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// $2.. are "--keeper-fd N --launcher-fd M --data DIR ...". Its id is written down once it is ready.
constexpr char kDaemon[] = R"(#!/bin/bash
data=$7
cat /proc/$$/status > $data/status.new && mv $data/status.new $data/status
[ -e $data/fail ] && { echo $$ >> $data/pids; exit 7; }
trap 'echo drained > $data/drained; exit 0' TERM
trap 'echo reloaded > $data/reloaded' HUP
[ -e $data/crash ] && crash=yes
printf R >&$3
echo $$ >> $data/pids
[ "$crash" ] && exit 9
while :; do sleep 0.05; done
)";

constexpr const char* kFirstDelays[] = {"at once", "in 100 ms", "in 200 ms", "in 400 ms"};

class Keeper : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);  // orphans become our children
    chmod(dir_.path().c_str(), 0755);
    std::ofstream(dir_.path() + "/daemon") << kDaemon;
    chmod((dir_.path() + "/daemon").c_str(), 0755);
    data_ = dir_.path() + "/data";
  }
  void TearDown() override {
    std::vector<pid_t> orphans = DaemonPids();
    if (keeper_.valid()) {
      if (const pid_t launcher = LauncherNow({}); launcher > 0) orphans.push_back(launcher);
      (void)keeper_.Signal(SIGKILL);
      (void)keeper_.Reap();
    }
    for (const pid_t pid : orphans) EXPECT_TRUE(Until([&] { return IsGone(pid); })) << pid;
    ShowLogOfFailure(Log());
  }
  // They end with the keeper, but not at once; the next test must not find them.
  static bool IsGone(pid_t pid) {
    (void)waitpid(pid, nullptr, WNOHANG);
    return kill(pid, 0) != 0;
  }
  std::string Log() const { return dir_.path() + "/keeper.log"; }
  PidFd Start(int lifeline = -1) {
    SpawnOptions spawn;
    spawn.argv = {fs::read_symlink("/proc/self/exe").parent_path() / "pulga-launcher",
                  "keeper",
                  "--pulga",
                  dir_.path() + "/daemon",
                  "--data",
                  data_,
                  "--user",
                  "2046754816"};
    spawn.env = {"PATH=/usr/bin:/bin"};
    const UniqueFd log(open(Log().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    spawn.fds = {{0, 0}, {1, 1}, {log.get(), 2}};
    if (lifeline >= 0) {
      spawn.argv.insert(spawn.argv.end(), {"--lifeline-fd", "3"});
      spawn.fds.push_back({lifeline, 3});
    }
    auto started = SpawnProcess(spawn);
    EXPECT_TRUE(started.ok()) << started.error().message;
    return std::move(started).value();
  }
  bool Until(const std::function<bool()>& done) {
    for (int i = 0; i < 6000 && !done(); ++i) usleep(10000);
    return done();
  }
  std::vector<pid_t> DaemonPids() {
    std::istringstream in(Slurp(data_ + "/pids"));
    return {std::istream_iterator<pid_t>(in), {}};
  }
  bool WaitForDaemons(size_t count) {
    return Until([&] { return DaemonPids().size() >= count; });
  }
  // The keeper's launcher and none of `others`, by one look at /proc; -1 when there is none. A
  // child that has not come to its execve yet carries the keeper's own command line.
  pid_t LauncherNow(const std::set<pid_t>& others) {
    for (const auto& process : fs::directory_iterator("/proc")) {
      const std::string status = Slurp(process.path() / "status");
      if (StatusField(status, "PPid") != std::to_string(keeper_.pid())) continue;
      if (StatusField(status, "State").rfind('Z', 0) == 0) continue;
      const std::string command = Slurp(process.path() / "cmdline");
      if (command.find(std::string("\0launcher\0", 10)) == std::string::npos) continue;
      const pid_t pid = std::stoi(process.path().filename());
      if (!others.contains(pid)) return pid;
    }
    return -1;
  }
  pid_t WaitForLauncher(const std::set<pid_t>& others = {}) {
    pid_t pid = -1;
    (void)Until([&] { return (pid = LauncherNow(others)) > 0; });
    return pid;
  }
  // The delays the log speaks of, in the order of its lines with `who`.
  std::vector<std::string> DelaysOf(const std::string& who) {
    std::vector<std::string> out;
    std::istringstream in(Slurp(Log()));
    for (std::string line; std::getline(in, line);) {
      if (line.find("the " + who + " ended") == std::string::npos) continue;
      const size_t at = line.find(" anew ") == std::string::npos ? line.find(" another ") + 9
                                                                 : line.find(" anew ") + 6;
      out.push_back(line.substr(std::min(at, line.size())));
    }
    return out;
  }
  TempDir dir_ = std::move(TempDir::Create("/tmp/pulga-keeper-test-")).value();
  std::string data_;
  PidFd keeper_;
};

TEST_F(Keeper, StartsTheDaemonWithoutAnyPrivilege) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  const std::string status = Slurp(data_ + "/status");
  EXPECT_EQ(StatusField(status, "Uid"), "2046754816\t2046754816\t2046754816\t2046754816");
  EXPECT_EQ(StatusField(status, "Groups"), "");
  EXPECT_EQ(StatusField(status, "NoNewPrivs"), "1");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(StatusField(status, set), "0000000000000000") << set;
  }
}

TEST_F(Keeper, KeepsTheDataDirectoryToTheDaemonAndTheLayersToRoot) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  struct stat st = {};
  ASSERT_EQ(stat(data_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700U);
  EXPECT_EQ(st.st_uid, 0x79FF0000U);
  ASSERT_EQ(stat((data_ + "/layers").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700U);
  EXPECT_EQ(st.st_uid, 0U);
}

TEST_F(Keeper, RefusesASecondDaemonOnOneDataDirectory) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  PidFd second = Start();
  const auto info = second.Reap();
  EXPECT_EQ(WEXITSTATUS(info->wait_status), 1);
}

TEST_F(Keeper, StartsBothAnewWhenTheDaemonDies) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  const pid_t launcher = WaitForLauncher();
  ASSERT_GT(launcher, 0);
  kill(DaemonPids()[0], SIGKILL);
  ASSERT_TRUE(WaitForDaemons(2));
  EXPECT_GT(WaitForLauncher({launcher}), 0);
}

TEST_F(Keeper, StartsALauncherForTheOneThatDiedAndLeavesTheDaemonAlone) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  const pid_t first = WaitForLauncher();
  ASSERT_GT(first, 0);
  kill(first, SIGKILL);
  EXPECT_GT(WaitForLauncher({first}), 0);
  EXPECT_EQ(DaemonPids().size(), 1U);
}

TEST_F(Keeper, StopsGracefullyAndReportsTheDaemonsStatus) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  ASSERT_TRUE(keeper_.Signal(SIGHUP).ok());
  EXPECT_TRUE(Until([&] { return fs::exists(data_ + "/reloaded"); }));
  ASSERT_TRUE(keeper_.Signal(SIGTERM).ok());
  const auto info = keeper_.Reap();
  EXPECT_EQ(info->wait_status, 0);
  EXPECT_THAT(Slurp(data_ + "/drained"), HasSubstr("drained"));
}

TEST_F(Keeper, StopsGracefullyWhenWhoHoldsItsLifelineIsGone) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd held(ends[1]);
  {
    const UniqueFd given(ends[0]);
    keeper_ = Start(given.get());
  }
  ASSERT_TRUE(WaitForDaemons(1));
  ASSERT_EQ(kill(keeper_.pid(), 0), 0);
  held.Reset();
  const auto info = keeper_.Reap();
  EXPECT_EQ(info->wait_status, 0);
  EXPECT_THAT(Slurp(data_ + "/drained"), HasSubstr("drained"));
}

TEST_F(Keeper, LeavesADirectoryOfSomebodyElseAlone) {
  fs::create_directory(data_);
  std::ofstream(data_ + "/diary") << "dear";
  fs::create_symlink("/nowhere", data_ + "/lock");  // as /var has
  chmod(data_.c_str(), 0755);
  keeper_ = Start();
  EXPECT_EQ(WEXITSTATUS(keeper_.Reap()->wait_status), 1);
  struct stat st = {};
  ASSERT_EQ(stat(data_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755U);
  EXPECT_EQ(st.st_uid, 0U);
  EXPECT_EQ(std::distance(fs::directory_iterator(data_), {}), 2);
}

TEST_F(Keeper, AdoptsAnEmptyDirectoryAndTakesItsOwnAgain) {
  fs::create_directory(data_);
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  ASSERT_TRUE(keeper_.Signal(SIGTERM).ok());
  (void)keeper_.Reap();
  keeper_ = Start();
  EXPECT_TRUE(WaitForDaemons(2));
  ASSERT_TRUE(keeper_.Signal(SIGTERM).ok());
  (void)keeper_.Reap();
}

TEST_F(Keeper, EndsWithADaemonThatNeverGotReady) {
  fs::create_directories(data_ + "/layers");
  std::ofstream(data_ + "/fail") << "1";
  keeper_ = Start();
  const auto info = keeper_.Reap();
  EXPECT_EQ(WEXITSTATUS(info->wait_status), 7);
  EXPECT_EQ(DaemonPids().size(), 1U);
}

TEST_F(Keeper, WaitsLongerEachTimeADaemonCrashesAndServesOnceItNoLongerDoes) {
  fs::create_directories(data_ + "/layers");
  std::ofstream(data_ + "/crash") << "1";
  const auto started = std::chrono::steady_clock::now();
  keeper_ = Start();
  ASSERT_TRUE(Until([&] { return DelaysOf("daemon").size() == 4; }));
  fs::remove(data_ + "/crash");  // the fourth has died, the fifth waits
  EXPECT_THAT(DelaysOf("daemon"), ElementsAreArray(kFirstDelays));
  ASSERT_TRUE(WaitForDaemons(5));
  EXPECT_GE(std::chrono::steady_clock::now() - started, std::chrono::milliseconds(700));
  ASSERT_TRUE(keeper_.Signal(SIGTERM).ok());
  EXPECT_EQ(keeper_.Reap()->wait_status, 0);
  EXPECT_THAT(Slurp(data_ + "/drained"), HasSubstr("drained"));
}

TEST_F(Keeper, WaitsLongerEachTimeALauncherDiesAndGoesOnWithTheLast) {
  keeper_ = Start();
  ASSERT_TRUE(WaitForDaemons(1));
  const auto started = std::chrono::steady_clock::now();
  std::set<pid_t> killed;
  while (killed.size() < 4) {
    const pid_t pid = WaitForLauncher(killed);
    ASSERT_GT(pid, 0);
    killed.insert(pid);
    kill(pid, SIGKILL);
  }
  ASSERT_GT(WaitForLauncher(killed), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - started, std::chrono::milliseconds(700));
  EXPECT_THAT(DelaysOf("launcher"), ElementsAreArray(kFirstDelays));
  EXPECT_EQ(DaemonPids().size(), 1U);
}

TEST(KeeperBackOff, StartsAtOnceAgainAfterALongLife) {
  using std::chrono::milliseconds;
  RestartBackOff back_off;
  EXPECT_EQ(back_off.After(Duration::zero()), milliseconds(0));
  EXPECT_EQ(back_off.After(milliseconds(1)), milliseconds(100));
  EXPECT_EQ(back_off.After(kAliveLongEnough - milliseconds(1)), milliseconds(200));
  EXPECT_EQ(back_off.After(kAliveLongEnough), milliseconds(0));
  EXPECT_EQ(back_off.After(milliseconds(1)), milliseconds(100));
}

TEST(KeeperBackOff, GrowsFromNothingToTenSeconds) {
  using std::chrono::milliseconds;
  EXPECT_EQ(RestartDelay(0), milliseconds(0));
  EXPECT_EQ(RestartDelay(1), milliseconds(100));
  EXPECT_EQ(RestartDelay(2), milliseconds(200));
  EXPECT_EQ(RestartDelay(5), milliseconds(1600));
  EXPECT_EQ(RestartDelay(8), milliseconds(10000));
  EXPECT_EQ(RestartDelay(1000), milliseconds(10000));
}

}  // namespace
}  // namespace pulga::testing
