#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/cgroup_view.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using enum CgroupController;

CgroupHierarchy V1(std::vector<CgroupController> controllers, const char* options) {
  return {CgroupVersion::kV1, std::move(controllers), "/base", false, options};
}

CgroupHierarchy V2(std::vector<CgroupController> controllers) {
  return {CgroupVersion::kV2, std::move(controllers), "/base", false, ""};
}

TEST(CgroupView, OfPureV2IsOneMountAtTheTop) {
  const auto views = CgroupViews({{V2({kMemory, kCpu, kPids})}, {}});
  ASSERT_EQ(views.size(), 1U);
  EXPECT_EQ(views[0].fstype, "cgroup2");
  EXPECT_EQ(views[0].target, "sys/fs/cgroup");
  EXPECT_FALSE(views[0].of_version);
}

TEST(CgroupView, OfV1IsAMountForEachHierarchyRuntimesLookAt) {
  const auto views = CgroupViews({{V1({kMemory}, "memory"), V1({kPids}, "pids"),
                                   V1({kFreezer}, "freezer"), V1({kIo}, "blkio")},
                                  {}});
  ASSERT_EQ(views.size(), 1U);
  EXPECT_EQ(views[0].fstype, "cgroup");
  EXPECT_EQ(views[0].options, "memory");
  EXPECT_EQ(views[0].target, "sys/fs/cgroup/memory");
}

TEST(CgroupView, OfHierarchiesMountedTogetherHasEachName) {
  const auto views = CgroupViews({{V1({kCpu, kCpuacct}, "cpu,cpuacct")}, {}});
  ASSERT_EQ(views.size(), 1U);
  EXPECT_EQ(views[0].options, "cpu,cpuacct");
  EXPECT_EQ(views[0].target, "sys/fs/cgroup/cpu,cpuacct");
  EXPECT_THAT(views[0].aliases, ElementsAre("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpuacct"));
}

TEST(CgroupView, OfAV2BesideV1sStandsAside) {
  const auto views = CgroupViews({{V1({kMemory}, "memory"), V2({kCpu})}, {}});
  ASSERT_EQ(views.size(), 2U);
  EXPECT_EQ(views[1].target, "sys/fs/cgroup/unified");
}

TEST(CgroupView, OfCpusetIsTheVersions) {
  const auto views = CgroupViews({{V1({kCpuset}, "cpuset")}, {}});
  ASSERT_EQ(views.size(), 1U);
  EXPECT_TRUE(views[0].of_version);
}

}  // namespace
}  // namespace pulga
