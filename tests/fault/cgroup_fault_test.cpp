// Making a version's cgroups with every system call failing once.
#include <gtest/gtest.h>
#include <unistd.h>

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
    ASSERT_TRUE(tree->RemoveVersion(1).ok());
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
    ASSERT_TRUE(tree->RemoveJob("unpack-1").ok());
  });
  EXPECT_TRUE(tree->Remove().ok());
}

}  // namespace
}  // namespace pulga
