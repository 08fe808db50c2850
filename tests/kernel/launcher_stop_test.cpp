// Freezing where the kernel has no cgroup freezer: the launcher runs in a mount namespace in which
// none is mounted, and stops instances by signals. On a kernel whose memory controller is v2 that
// cannot be shown: its freezer comes with it.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/file_io.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_files.h"
#include "sandbox/slot_processes.h"
#include "sandbox/slot_reclaim.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

// Until its end the calling process is in a mount namespace of its own.
class OwnMounts {
 public:
  OwnMounts() : ours_(OpenFile("/proc/self/ns/mnt", O_RDONLY).value()) {
    if (unshare(CLONE_NEWNS) != 0) return;
    made_ = mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  }
  ~OwnMounts() {
    const std::string here = std::filesystem::current_path();
    EXPECT_EQ(setns(ours_.get(), CLONE_NEWNS), 0);
    EXPECT_EQ(chdir(here.c_str()), 0);
  }
  bool Unmount(const std::string& path) const { return made_ && umount(path.c_str()) == 0; }

 private:
  UniqueFd ours_;
  bool made_ = false;
};

class LauncherStop : public LauncherTest {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
    ASSERT_TRUE(layout.ok()) << layout.error().message;
    layout_ = *layout;
    const CgroupHierarchy* freezer = layout_.Find(CgroupController::kFreezer);
    if (layout_.Find(CgroupController::kMemory)->version == CgroupVersion::kV2 ||
        freezer == nullptr || freezer->controllers.size() != 1) {
      GTEST_SKIP() << "this kernel's memory controller comes with a freezer";
    }
    mounts_.emplace();
    for (const CgroupMount& at : ParseCgroupMounts(ReadCgroupSnapshot()->mountinfo)) {
      const bool freezes = at.version == CgroupVersion::kV2 ||
                           std::ranges::count(at.controllers, std::string("freezer")) != 0;
      if (!freezes) continue;
      ASSERT_TRUE(mounts_->Unmount(at.mount_point)) << at.mount_point;
    }
    world_.StartLauncher();
    spec_ = world_.Spec();
    spec_.mode = SandboxMode::kHttp;
    spec_.limits.memory_bytes = 48 << 20;
    Build(spec_);
  }
  void TearDown() override {
    LauncherTest::TearDown();
    mounts_.reset();
  }
  void Start(const std::vector<std::string>& args, Stdio& stdio) {
    StartOptions options = world_.WithPipes(stdio);
    options.extra_args = args;
    ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  }
  std::string Directory() const {
    return layout_.Find(CgroupController::kMemory)->base + "/" + world_.tree() + "/v" +
           std::to_string(spec_.version_id) + "/slot-0";
  }
  size_t Processes() const { return cgroup_files::ListProcesses(Directory()).size(); }
  uint64_t CpuUsed() const {
    const std::string directory = layout_.Find(CgroupController::kCpuacct)->base + "/" +
                                  world_.tree() + "/v" + std::to_string(spec_.version_id) +
                                  "/slot-0/cpuacct.usage";
    const auto text = ReadFile(directory);
    EXPECT_TRUE(text.ok()) << text.error().message;
    return text.ok()
               ? ParseCounter(CounterFormat::kNumber, text->substr(0, text->find('\n'))).value_or(0)
               : 0;
  }
  bool Stopped() const { return Processes() > 0 && AllStopped(Directory()); }
  bool UntilStopped() {
    return world_.Until([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return Stopped();
    });
  }

  std::optional<OwnMounts> mounts_;
  CgroupLayout layout_;
  VersionSpec spec_;
};

TEST_F(LauncherStop, SaysHowItFreezes) {
  const std::vector<Feature> layers = spawner_->layers();
  const Feature* freezer = FindFeature(layers, "cgroup.freezer");
  ASSERT_NE(freezer, nullptr);
  EXPECT_EQ(freezer->state, FeatureState::kDegraded);
  EXPECT_THAT(freezer->detail, HasSubstr("SIGSTOP"));
}

TEST_F(LauncherStop, WhatIsStoppedRunsNoMoreUntilItIsThawed) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(Start({"spin", "3", "3600"}, stdio));
  ASSERT_TRUE(world_.Until([&] { return Processes() >= 3; }));
  ASSERT_TRUE(spawner_->Freeze(0).ok());
  ASSERT_TRUE(UntilStopped());
  const uint64_t used = CpuUsed();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(CpuUsed(), used);
  EXPECT_TRUE(events_.exits.empty()) << "a stop is no end";
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  EXPECT_TRUE(world_.Until([&] { return CpuUsed() > used; }));
  EXPECT_FALSE(Stopped());
}

TEST_F(LauncherStop, WhatIsThawedAnswersAndAReclaimKnowsThatItIsStopped) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(Start({"hold", "4"}, stdio));
  std::string said;
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "held")) << said;
  const auto reclaim = [&] {
    return Await([&](auto done) {
      world_.client().Reclaim(spec_.version_id, 0, [done](const Result<Reclaimed>& brought) {
        done(brought.ok() ? OkStatus() : Status(brought.error()));
      });
    });
  };
  EXPECT_THAT(reclaim().error().message, HasSubstr("not frozen"));
  ASSERT_TRUE(spawner_->Freeze(0).ok());
  ASSERT_TRUE(UntilStopped());
  EXPECT_TRUE(reclaim().ok());
  ASSERT_TRUE(WriteAll(stdio.in.get(), "\n").ok());
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "intact")) << said;
}

TEST_F(LauncherStop, ASignalReachesWhatIsStoppedAndTheNextInstanceRuns) {
  for (const int signo : {SIGTERM, SIGKILL}) {
    Stdio stdio;
    ASSERT_NO_FATAL_FAILURE(Start({"hold", "1"}, stdio));
    std::string said;
    ASSERT_TRUE(world_.UntilSaid(stdio, said, "held")) << said;
    ASSERT_TRUE(spawner_->Freeze(0).ok());
    ASSERT_TRUE(UntilStopped());
    const size_t before = events_.exits.size();
    ASSERT_TRUE(spawner_->Signal(0, signo).ok());
    ASSERT_TRUE(world_.Until([&] { return events_.exits.size() > before; })) << signo;
  }
}

TEST_F(LauncherStop, AVersionEndsWithWhatIsStoppedInIt) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(Start({"spin", "2", "3600"}, stdio));
  ASSERT_TRUE(world_.Until([&] { return Processes() >= 2; }));
  ASSERT_TRUE(spawner_->Freeze(0).ok());
  ASSERT_TRUE(UntilStopped());
  EXPECT_TRUE(Await([&](auto done) { world_.client().Drop(spec_.version_id, done); }).ok());
}

// Whatever it does, it is bounded, and the launcher serves on.
TEST_F(LauncherStop, WhatForksFasterThanItIsListedDoesNotHoldTheLauncherUp) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(Start({"respawn", "2"}, stdio));
  ASSERT_TRUE(world_.Until([&] { return Processes() >= 2; }));
  ASSERT_TRUE(spawner_->Freeze(0).ok());
  bool answered = false;
  world_.client().ListLayers([&](const Result<std::vector<LayerId>>&) { answered = true; });
  EXPECT_TRUE(world_.Until([&] { return answered; }));
  ASSERT_TRUE(spawner_->Signal(0, SIGKILL).ok());
  EXPECT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
}

}  // namespace
}  // namespace pulga::testing
