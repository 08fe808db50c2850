// Building a version and starting an instance with every system call of the launcher, the set-up
// child, the spawner and the instance failing once. Whatever happens, the function is never run
// half confined, the launcher serves on, and nothing is left.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

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

  CgroupLayout layout_;
  std::unique_ptr<LauncherWorld> world_;
  pid_t launcher_ = -1;
  int fds_ = 0;
  size_t mounts_ = 0;
};

TEST_F(VersionFaults, AFailedBuildSaysWhyAndLeavesNothing) {
  Recorder events;
  VersionSpec spec = world_->Spec({"/hello"});
  spec.slots = 1;
  int failed = 0, replaced = 0;
  const int calls = testing::SweepFaults(EIO, [&](int n) {
    spec.version_id = 1000 + static_cast<uint64_t>(n);
    auto spawner = world_->Build(spec, events);
    if (spawner == nullptr) {
      ++failed;
      ASSERT_FALSE(world_->error.ok()) << n;
    }
    spawner.reset();
    ASSERT_TRUE(NothingLeft()) << "call " << n << ": " << State();
    if (world_->client().available()) return;
    ++replaced;
    ReplaceLauncher();
  });
  EXPECT_GT(calls, 50);
  EXPECT_GT(failed, 50);
  EXPECT_LE(replaced, 10);  // one for each message, on either side
}

// One start in slot 0. Not ended: our own call failed, nothing was started.
RunResult StartOnce(LauncherWorld& world, Spawner& spawner, Recorder& events) {
  RunResult result;
  testing::Stdio stdio;
  StartOptions options = world.WithPipes(stdio);
  const size_t before = events.exits.size();
  if (!spawner.Start(0, std::move(options)).ok()) return result;
  result.ended = world.Until([&] { return events.exits.size() > before || !events.gone.empty(); });
  if (events.exits.size() == before) return result;
  result.exit = events.exits.back();
  char out[256];
  const ssize_t size = read(stdio.out.get(), out, sizeof out);
  if (size > 0) result.out.assign(out, static_cast<size_t>(size));
  return result;
}

TEST_F(VersionFaults, AnInstanceRunsCompletelyConfinedOrNotAtAll) {
  Recorder events;
  VersionSpec spec = world_->Spec({"/hello"});
  spec.slots = 1;
  auto spawner = world_->Build(spec, events);
  ASSERT_NE(spawner, nullptr) << world_->error.error().message;
  ASSERT_EQ(StartOnce(*world_, *spawner, events).exit.setup_step, "");
  int failed = 0, replaced = 0;
  const int calls = testing::SweepFaults(EPERM, [&](int n) {
    const RunResult run = StartOnce(*world_, *spawner, events);
    // The call of the round before may have been the spawner's last; the news of it is on its way.
    if (!run.ended && n > 1) (void)world_->Until([&] { return !events.gone.empty(); });
    if (!events.gone.empty()) {  // its socket failed: it ends, and nothing else does
      ++replaced;
      events.gone.clear();
      spawner.reset();
      ++spec.version_id;
      spawner = world_->Build(spec, events);
      ASSERT_NE(spawner, nullptr) << "call " << n << ": " << world_->error.error().message;
      return;
    }
    ASSERT_TRUE(run.ended || n == 1) << "call " << n;
    if (!run.ended) return;
    if (run.exit.setup_step.empty()) {
      EXPECT_EQ(run.exit.wait_status, 0) << "call " << n;
      EXPECT_NE(run.out, "") << "call " << n;
      return;
    }
    ++failed;
    EXPECT_EQ(run.out, "") << "call " << n << ": it ran after a failed " << run.exit.setup_step;
    EXPECT_EQ(run.exit.sys_errno, EPERM) << run.exit.setup_step;
  });
  EXPECT_GT(calls, 10);
  EXPECT_GT(failed, 10);
  EXPECT_LE(replaced, 4);
  EXPECT_EQ(StartOnce(*world_, *spawner, events).exit.setup_step, "");
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
