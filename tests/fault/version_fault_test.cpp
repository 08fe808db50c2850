// Building a version and starting an instance with every system call of the launcher, the set-up
// child, the spawner and the instance failing once. Whatever happens, the function is never run
// half confined, the launcher serves on, and nothing is left.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <set>

#include "base/text.h"
#include "sandbox/cgroup_files.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/id_ranges.h"
#include "tests/kernel/launcher_world.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

using testing::LauncherWorld;
using testing::Recorder;
using testing::RunResult;

// What an instance tells of its walls, the same whichever way it was set up: ids, capabilities,
// filters, limits, and its mounts in any order.
std::string Walls(const std::string& out) {
  std::set<std::string> walls;
  for (const std::string_view line : Split(out, '\n')) {
    for (const char* fact : {"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Max "}) {
      if (line.starts_with(fact)) walls.emplace(line);
    }
    const auto fields = Split(line, ' ');
    const size_t dash = line.find(" - ");
    if (fields.size() < 7 || dash == std::string_view::npos) continue;
    walls.emplace(std::string(fields[4]) + " " + std::string(fields[5]) +
                  std::string(line.substr(dash)));
  }
  std::string text;
  for (const std::string& wall : walls) text += wall + "\n";
  return text;
}

// Processes whose parent is `pid`, the dead but unreaped too.
int CountChildren(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
  int count = 0;
  for (std::string child; in >> child;) ++count;
  return count;
}

class VersionFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEED(geteuid() == 0, "a launcher needs root");
    layout_ = PlanCgroupLayout(ReadCgroupSnapshot().value()).value();
    world_ = std::make_unique<LauncherWorld>();
    StartLauncher();
  }
  void StartLauncher() {
    world_->ForkLauncher();
    launcher_ = world_->launcher_pid();
    Remember();
  }
  // A launcher whose socket fails ends itself, with all it held; the keeper starts the next one.
  void ReplaceLauncher() {
    EXPECT_TRUE(world_->Until([&] {
      siginfo_t info = {};
      waitid(P_PID, static_cast<id_t>(launcher_), &info, WEXITED | WNOHANG | WNOWAIT);
      return info.si_pid == launcher_;
    }));
    world_->KillLauncher();  // reaps it
    EXPECT_TRUE(world_->Leftovers().empty()) << world_->Leftovers()[0];
    StartLauncher();
  }
  void TearDown() override {
    if (!world_) return;
    world_->StopLauncher();
    EXPECT_TRUE(world_->Leftovers().empty()) << world_->Leftovers()[0];
  }

  std::string launcher() const { return std::to_string(launcher_); }
  // Of ours: the machine's own come and go.
  size_t CountMounts() const {
    std::ifstream in("/proc/" + launcher() + "/mountinfo");
    size_t count = 0;
    for (std::string line; std::getline(in, line);) {
      count += line.find(world_->data()) != std::string::npos;
    }
    return count;
  }
  // Cgroups below the tree.
  size_t CountCgroups() const {
    size_t count = 0;
    for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
      const auto all = cgroup_files::ListDeepestFirst(hierarchy.base + "/" + world_->tree());
      count += all.empty() ? 0 : all.size() - 1;
    }
    return count;
  }
  // Removal is the launcher's, behind our back: wait for it, or for its own end.
  bool NothingLeft() {
    return world_->Until([&] {
      if (!world_->client().available()) return true;
      return CountCgroups() == 0 && CountChildren(launcher_) == 0 &&
             testing::CountFds(launcher()) == fds_ && CountMounts() == mounts_;
    });
  }
  // Counts once what an earlier version held is gone.
  void Remember() {
    ASSERT_TRUE(world_->Until([&] {
      const int fds = testing::CountFds(launcher());
      const bool settled = fds == fds_ && CountCgroups() == 0 && CountChildren(launcher_) == 0;
      fds_ = fds;
      return settled;
    }));
    mounts_ = CountMounts();
  }
  std::string State() {
    return std::to_string(CountCgroups()) + " cgroups, " +
           std::to_string(CountChildren(launcher_)) + " children, " +
           std::to_string(testing::CountFds(launcher())) + " of " + std::to_string(fds_) +
           " fds, " + std::to_string(CountMounts()) + " of " + std::to_string(mounts_) + " mounts";
  }

  // A launcher is spared by 0 here; what it builds must not be, whichever call failed.
  void NoneIsSpared(int n) const {
    std::ifstream in("/proc/" + launcher() + "/task/" + launcher() + "/children");
    for (std::string child, score; in >> child;) {
      std::ifstream("/proc/" + child + "/oom_score_adj") >> score;
      EXPECT_EQ(score, "500") << "call " << n;
    }
  }

  using RunOnce = std::function<RunResult(LauncherWorld&, Spawner&, Recorder&)>;
  void SweepBuilds(VersionSpec spec);
  void SweepInstances(VersionSpec spec, const RunOnce& run_once);

  CgroupLayout layout_;
  std::unique_ptr<LauncherWorld> world_;
  pid_t launcher_ = -1;
  int fds_ = 0;
  size_t mounts_ = 0;
};

void VersionFaults::SweepBuilds(VersionSpec spec) {
  Recorder events;
  spec.slots = 1;
  int failed = 0, replaced = 0;
  const int calls = testing::SweepFaults(EIO, [&](int n) {
    spec.version_id = 1000 + static_cast<uint64_t>(n);
    auto spawner = world_->Build(spec, events);
    if (spawner == nullptr) {
      ++failed;
      ASSERT_FALSE(world_->error.ok()) << n;
    } else {
      NoneIsSpared(n);
    }
    spawner.reset();
    ASSERT_TRUE(NothingLeft()) << "call " << n << ": " << State();
    if (world_->client().available()) return;
    ++replaced;
    ReplaceLauncher();
  });
  EXPECT_GT(calls, 50);
  EXPECT_GT(failed, 50);
  EXPECT_LE(replaced, 20);  // one for each message, on either side, and again where it is late
}

TEST_F(VersionFaults, AFailedBuildSaysWhyAndLeavesNothing) {
  SweepBuilds(world_->Spec({"/hello"}));
}

// The user is looked up by a child, and another holds the mount's ids meanwhile.
TEST_F(VersionFaults, AFailedBuildWithAnOwnedHostDirectoryLeavesNothing) {
  const std::string host = world_->data() + "/host";
  ASSERT_EQ(mkdir(host.c_str(), 0755), 0);
  world_->StopLauncher();
  world_->Grant("host-directory " + host + " read-write owner=3000 functions=*\n");
  StartLauncher();  // reads it
  VersionSpec spec = world_->Spec({"/hello"});
  spec.user = "app";
  spec.access.volumes = {{VolumeKind::kHost, host, "/host", false, 0}};
  Recorder events;
  if (world_->Build(spec, events) == nullptr) {  // that is told, too
    EXPECT_NE(world_->error.error().message.find("id-mapped mounts"), std::string::npos);
    return;
  }
  ASSERT_TRUE(NothingLeft()) << State();
  SweepBuilds(spec);
}

// What an instance in slot 0 came to. Not ended: nothing was heard of it.
RunResult EndOf(LauncherWorld& world, Recorder& events, testing::Stdio& stdio, size_t before) {
  RunResult result;
  result.ended = world.Until([&] { return events.exits.size() > before || !events.gone.empty(); });
  if (events.exits.size() == before) return result;
  result.exit = events.exits.back();
  char out[16 << 10];
  const ssize_t size = read(stdio.out.get(), out, sizeof out);
  if (size > 0) result.out.assign(out, static_cast<size_t>(size));
  return result;
}

constexpr const char* kRefused = "our own call failed";

RunResult Refused(const Status& why) {
  RunResult result;
  result.err = kRefused;
  result.exit.sys_errno = why.error().sys_errno;
  return result;
}

RunResult StartOnce(LauncherWorld& world, Spawner& spawner, Recorder& events) {
  testing::Stdio stdio;
  StartOptions options = world.WithPipes(stdio);
  const size_t before = events.exits.size();
  const Status started = spawner.Start(0, std::move(options));
  if (!started.ok()) return Refused(started);
  return EndOf(world, events, stdio, before);
}

constexpr const char* kGivenUp = "the wake message was not sent";

RunResult ParkAndWake(LauncherWorld& world, Spawner& spawner, Recorder& events) {
  testing::Stdio stdio;
  StartOptions options = world.WithPipes(stdio);
  const size_t before = events.exits.size();
  const size_t parked = events.parked.size();
  const Status parking = spawner.Park(0);
  if (!parking.ok()) return Refused(parking);
  EXPECT_TRUE(world.Until([&] {
    return events.parked.size() > parked || events.exits.size() > before || !events.gone.empty();
  }));
  // Our own end of the wake socket may be what failed: then it is closed, and the instance ends.
  const bool is_parked = events.parked.size() > parked;
  const bool given_up = !is_parked || !spawner.Wake(0, std::move(options)).ok();
  if (is_parked && given_up) (void)spawner.Signal(0, SIGKILL);
  RunResult result = EndOf(world, events, stdio, before);
  if (given_up) result.err = kGivenUp;
  return result;
}

// Ended as told, behind the same walls as without a fault, or with a step and the errno of the
// failed call and nothing run.
void CheckEnd(const RunResult& run, int n, const std::string& walls, int* failed) {
  if (run.exit.setup_step.empty()) {
    const bool ran = run.exit.wait_status == 0 && run.out != "";
    EXPECT_TRUE(ran != (run.err == kGivenUp)) << "call " << n << ": " << run.exit.wait_status;
    if (ran) {
      EXPECT_EQ(Walls(run.out), walls) << "call " << n;
    }
    return;
  }
  ++*failed;
  EXPECT_EQ(run.out, "") << "call " << n << ": it ran after a failed " << run.exit.setup_step;
  EXPECT_EQ(run.exit.sys_errno, EPERM) << run.exit.setup_step;
}

// One instance after the other, of a spawner that is replaced when it ended itself.
void VersionFaults::SweepInstances(VersionSpec spec, const RunOnce& run_once) {
  Recorder events;
  spec.slots = 1;
  std::unique_ptr<Spawner> spawner;
  std::string walls;
  int failed = 0, replaced = 0, calls = 0;
  for (int n = 1; calls >= n - 1; ++n) {
    if (!world_->client().available()) ReplaceLauncher();
    if (spawner == nullptr) {
      ++spec.version_id;
      spawner = world_->Build(spec, events);
      ASSERT_NE(spawner, nullptr) << "call " << n << ": " << world_->error.error().message;
      const RunResult whole = run_once(*world_, *spawner, events);
      ASSERT_EQ(whole.exit.setup_step, "");
      walls = Walls(whole.out);
      ASSERT_NE(walls.find("NoNewPrivs:\t1"), std::string::npos) << whole.out;
      ASSERT_NE(walls.find("/tmp "), std::string::npos) << whole.out;
    }
    const testing::InjectedFault fault(n, EPERM);
    const RunResult run = run_once(*world_, *spawner, events);
    calls = sys::CallsSeen();
    // What a spawner does after its round is counted in the next one, so any call may be our own:
    // then nothing was started. Or it was the spawner's last, and the news of it is on its way.
    const bool own = run.err == kRefused && run.exit.sys_errno == EPERM;
    if (!run.ended && !own) (void)world_->Until([&] { return !events.gone.empty(); });
    if (!events.gone.empty()) {  // its socket failed: it ends, and nothing else does
      ++replaced;
      events.gone.clear();
      spawner.reset();
      calls = n;
      continue;
    }
    ASSERT_TRUE(run.ended || own) << "call " << n;
    if (own) calls = std::max(calls, n);
    if (run.ended) CheckEnd(run, n, walls, &failed);
    ASSERT_LT(n, 1000);
  }
  EXPECT_GT(calls, 20);
  EXPECT_GT(failed, 15);
  EXPECT_LE(replaced, 20);  // several for each message, on either side
  EXPECT_EQ(run_once(*world_, *spawner, events).exit.setup_step, "");
}

// Says its walls.
VersionSpec Telling(LauncherWorld& world) {
  return world.Spec({"/probe", "status;", "mounts;", "cat", "/proc/self/limits"});
}

TEST_F(VersionFaults, AnInstanceRunsCompletelyConfinedOrNotAtAll) {
  SweepInstances(Telling(*world_), StartOnce);
}

TEST_F(VersionFaults, AnInstanceWithoutInitRunsCompletelyConfinedOrNotAtAll) {
  VersionSpec spec = Telling(*world_);
  spec.init = InitKind::kNone;
  SweepInstances(spec, StartOnce);
}

TEST_F(VersionFaults, AWorkingDirectoryBelowTmpIsThereOrTheStartFails) {
  VersionSpec spec = Telling(*world_);
  spec.working_dir = "/tmp/a/b";
  SweepInstances(spec, StartOnce);
}

TEST_F(VersionFaults, AParkedInstanceWakesCompletelyConfinedOrNotAtAll) {
  SweepInstances(Telling(*world_), ParkAndWake);
}

// A slot that could not be closed to swap again is not used again: its version goes.
TEST_F(VersionFaults, AfterAReclaimASlotIsClosedToSwapOrItsVersionIsGone) {
  int gone = 0;
  int n = 1;
  for (int seen = 0; seen >= n - 1; ++n) {
    sys::FailNthCall(0, 0);
    Recorder events;
    VersionSpec spec = world_->Spec();
    spec.mode = SandboxMode::kHttp;
    spec.slots = 1;
    auto spawner = world_->Build(spec, events);
    ASSERT_NE(spawner, nullptr);
    testing::Stdio stdio;
    StartOptions options = world_->WithPipes(stdio);
    options.extra_args = {"hold", "1"};
    ASSERT_TRUE(spawner->Start(0, std::move(options)).ok());
    std::string said;
    ASSERT_TRUE(world_->UntilSaid(stdio, said, "held")) << said;
    ASSERT_TRUE(world_->Until([&] { return spawner->Freeze(0).ok(); }));
    const std::string slot = layout_.Find(CgroupController::kMemory)->base + "/" + world_->tree() +
                             "/v" + std::to_string(spec.version_id) + "/slot-0/";
    const auto limits = [&slot] {
      std::string text;
      for (const char* file : {"memory.swappiness", "memory.swap.max"}) {
        std::getline(std::ifstream(slot + file), text, '\0');
      }
      return text;
    };
    const std::string before = limits();
    ASSERT_NE(before, "");
    bool answered = false;
    sys::FailNthCall(n, EIO);
    world_->client().Reclaim(spec.version_id, 0,
                             [&](const Result<Reclaimed>&) { answered = true; });
    ASSERT_TRUE(world_->Until([&] { return answered || !events.gone.empty(); })) << "call " << n;
    const auto settled = [&] { return !events.gone.empty() || limits() == before; };
    EXPECT_TRUE(world_->Until(settled)) << "call " << n << " left it open: " << limits();
    seen = sys::CallsSeen();
    sys::FailNthCall(0, 0);
    gone += !events.gone.empty() && world_->client().available();
    spawner.reset();
    ASSERT_TRUE(NothingLeft()) << "call " << n << ": " << State();
    if (!world_->client().available()) ReplaceLauncher();
  }
  EXPECT_GT(n, 10);
  EXPECT_GT(gone, 0);
}

TEST_F(VersionFaults, AFailedRemovalOfALayerLeavesNoProcessAndNoCgroup) {
  LayerId id;
  id.bytes.fill(0x22);
  int replaced = 0;
  const int calls = testing::SweepFaults(EIO, [&](int n) {
    const std::string path = world_->data() + "/layers/" + id.Hex();  // no call of ours: they count
    mkdir(path.c_str(), 0755);
    ASSERT_EQ(chown(path.c_str(), kOwnerIdBase, kOwnerIdBase), 0);
    UnpackJob job;
    job.kind = UnpackKind::kRemove;
    job.target = id;
    bool answered = false;
    world_->client().RunUnpack(std::move(job), [&](Status) { answered = true; });
    ASSERT_TRUE(world_->Until([&] { return answered; })) << "call " << n;
    ASSERT_TRUE(NothingLeft()) << "call " << n << ": " << State();
    if (world_->client().available()) return;
    ++replaced;
    ReplaceLauncher();
  });
  EXPECT_GT(calls, 30);
  EXPECT_LE(replaced, 10);
}

}  // namespace
}  // namespace pulga

int main(int argc, char** argv) {
  pulga::sys::ShareFaultsWithChildren();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
