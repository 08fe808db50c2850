// Making a version's cgroups with every system call failing once.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>

#include "sandbox/cgroup.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

class CgroupFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEED(geteuid() == 0, "making cgroups needs root");
    layout_ = PlanCgroupLayout(ReadCgroupSnapshot().value()).value();
    name_ = "pulga-fault-" + std::to_string(getpid());
  }
  // Directories of the tree, beside the tree's own.
  int CountCgroups() {
    int count = 0;
    for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
      const std::string command =
          "find " + hierarchy.base + "/" + name_ + " -mindepth 1 -type d 2>/dev/null | wc -l";
      FILE* pipe = popen(command.c_str(), "r");
      int here = 0;
      if (fscanf(pipe, "%d", &here) == 1) count += here;
      pclose(pipe);
    }
    return count;
  }

  CgroupLayout layout_;
  std::string name_;
};

TEST_F(CgroupFaults, AFailedVersionLeavesNoCgroupAndNoDescriptor) {
  auto tree = CgroupTree::Open(name_, layout_).value();
  VersionCgroupOptions options;
  options.version_id = 1;
  options.slots = 2;
  options.limits.cpu_millis = 500;
  const int fds = testing::CountFds();
  int failures = 0;
  const int calls = testing::SweepFaults(EIO, [&](int n) {
    const auto version = tree->CreateVersion(options);
    if (!version.ok()) {
      ++failures;
      EXPECT_EQ(version.error().sys_errno, EIO) << version.error().message;
      ASSERT_EQ(CountCgroups(), 0) << "call " << n << ": " << version.error().message;
    }
    ASSERT_TRUE(tree->RemoveVersion(1).ok() || tree->RemoveVersion(1).ok());  // the fault hit it
  });
  EXPECT_GT(calls, 20);
  EXPECT_GT(failures, 20);  // counters alone may fail without ending it
  EXPECT_EQ(testing::CountFds(), fds);
  EXPECT_TRUE(tree->Remove().ok());
}

TEST_F(CgroupFaults, AFailedOpenOfTheTreeLeavesNoDirectory) {
  testing::SweepFaults(ENOSPC, [&](int n) {
    auto tree = CgroupTree::Open(name_, layout_);
    if (tree.ok()) {
      EXPECT_TRUE((*tree)->Remove().ok());
    } else {
      EXPECT_EQ(tree.error().code, Code::kNoSpace);
    }
    for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
      ASSERT_NE(access((hierarchy.base + "/" + name_).c_str(), F_OK), 0) << "call " << n;
    }
  });
}

TEST_F(CgroupFaults, AFailedJobLeavesNoCgroup) {
  auto tree = CgroupTree::Open(name_, layout_).value();
  testing::SweepFaults(ENOMEM, [&](int n) {
    const auto job = tree->CreateJob("unpack-1", SandboxLimits{});
    if (!job.ok()) {
      ASSERT_EQ(CountCgroups(), 0) << "call " << n;
    }
    ASSERT_TRUE(tree->RemoveJob("unpack-1").ok() || tree->RemoveJob("unpack-1").ok());
  });
  EXPECT_TRUE(tree->Remove().ok());
}

// All of a version's slots have the new limits, or all have the old ones, and it is said which.
TEST_F(CgroupFaults, AFailedResizeIsUndoneInEverySlot) {
  auto tree = CgroupTree::Open(name_, layout_).value();
  const CgroupHierarchy* memory = layout_.Find(CgroupController::kMemory);
  VersionCgroupOptions options;
  options.version_id = 1;
  options.slots = 3;
  options.limits.cpu_millis = 500;
  SandboxLimits other = options.limits;
  other.cpu_millis = 200;
  for (const uint64_t memory_bytes : {options.limits.memory_bytes / 2, uint64_t{1} << 30}) {
    other.memory_bytes = memory_bytes;
    int failures = 0;
    testing::SweepFaults(EIO, [&](int n) {
      if (!tree->CreateVersion(options).ok()) return;
      const auto resized = tree->ResizeSlots({1, options.slots, options.limits, other});
      ASSERT_NE(resized.end, CgroupTree::Resized::End::kBetween) << "call " << n;
      const bool done = resized.end == CgroupTree::Resized::End::kDone;
      if (!done) ++failures;
      EXPECT_EQ(resized.error, done ? 0 : EIO);
      for (uint16_t slot = 0; slot < options.slots; ++slot) {
        const std::string directory = tree->SlotDirectory(CgroupController::kMemory, 1, slot);
        const SandboxLimits& now = done ? other : options.limits;
        for (const CgroupWrite& write : LimitWrites(memory->version, now, {})) {
          std::string value;
          if (write.controller != CgroupController::kMemory) continue;
          if (!(std::ifstream(directory + "/" + write.file) >> value)) continue;  // may lack
          ASSERT_EQ(value, write.value) << "call " << n << ": " << directory << "/" << write.file;
        }
      }
      ASSERT_TRUE(tree->RemoveVersion(1).ok() || tree->RemoveVersion(1).ok());
    });
    EXPECT_GT(failures, 5);
  }
  EXPECT_TRUE(tree->Remove().ok());
}

// A slot that could not be frozen says so and runs on; whatever fails then, two kills end it.
TEST_F(CgroupFaults, AFailedFreezeIsSaidAndTheSlotCanStillBeKilled) {
  if (layout_.Find(CgroupController::kFreezer) == nullptr) PULGA_SKIP("no freezer");
  auto tree = CgroupTree::Open(name_, layout_).value();
  VersionCgroupOptions options;
  options.version_id = 1;
  options.slots = 1;
  options.freezable = true;
  auto version = std::move(tree->CreateVersion(options)).value();
  auto freezer = std::move(SlotFreezer::Adopt(std::move(version.slots[0].freezer))).value();
  const std::string slot = tree->SlotDirectory(CgroupController::kFreezer, 1, 0);
  int refused = 0;
  const int calls = testing::SweepFaults(EIO, [&](int n) {
    const pid_t child = testing::StartChild([] { return pause(); });
    std::ofstream(slot + "/cgroup.procs") << child << std::flush;
    const Status frozen = freezer.Freeze();
    if (!frozen.ok()) {
      ++refused;
      EXPECT_EQ(frozen.error().sys_errno, EIO);
    }
    tree->KillSlot(1, 0);
    tree->KillSlot(1, 0);
    EXPECT_EQ(testing::WaitForChild(child), SIGKILL) << "call " << n;
  });
  EXPECT_GT(calls, 4);
  EXPECT_EQ(refused, 1);
  EXPECT_TRUE(tree->RemoveVersion(1).ok());
  EXPECT_TRUE(tree->Remove().ok());
}

}  // namespace
}  // namespace pulga
