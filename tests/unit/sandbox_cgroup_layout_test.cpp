#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/cgroup_layout.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using enum CgroupController;

std::string V1Mount(const std::string& dir, const std::string& options,
                    const std::string& root = "/") {
  return "30 20 0:30 " + root + " /sys/fs/cgroup/" + dir +
         " rw,relatime shared:9 - cgroup cgroup rw," + options + "\n";
}

std::string V2Mount(const std::string& where, const std::string& root = "/") {
  return "41 31 0:38 " + root + " " + where + " rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
}

// All v1 controllers beside an empty v2, each controller on its own: as on some virtual machines.
CgroupSnapshot Hybrid() {
  CgroupSnapshot snapshot;
  for (const char* name : {"memory", "cpu", "cpuacct", "pids", "freezer", "blkio", "devices"}) {
    snapshot.mountinfo += V1Mount(name, name);
  }
  snapshot.mountinfo += V2Mount("/sys/fs/cgroup/unified");
  snapshot.self_cgroup = "8:pids:/\n4:memory:/api/17\n2:cpuacct:/\n0::/\n";
  return snapshot;
}

CgroupSnapshot PureV2(const std::string& own) {
  CgroupSnapshot snapshot;
  snapshot.mountinfo = "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + V2Mount("/sys/fs/cgroup");
  snapshot.self_cgroup = "0::" + own + "\n";
  snapshot.v2_top_controllers = "cpuset cpu io memory hugetlb pids rdma misc\n";
  snapshot.v2_own_controllers = "cpu io memory pids\n";
  return snapshot;
}

std::string BaseOf(const Result<CgroupLayout>& layout, CgroupController controller) {
  const CgroupHierarchy* hierarchy = layout->Find(controller);
  return hierarchy == nullptr ? "none" : hierarchy->base;
}

TEST(CgroupLayout, HybridsAreChosenControllerByController) {
  const auto layout = PlanCgroupLayout(Hybrid());
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(BaseOf(layout, kMemory), "/sys/fs/cgroup/memory/api/17");
  EXPECT_EQ(BaseOf(layout, kPids), "/sys/fs/cgroup/pids");
  EXPECT_EQ(BaseOf(layout, kIo), "/sys/fs/cgroup/blkio");
  EXPECT_EQ(BaseOf(layout, kDevices), "/sys/fs/cgroup/devices");
  EXPECT_THAT(layout->hierarchies, SizeIs(7));
  EXPECT_THAT(layout->warnings, IsEmpty());
}

TEST(CgroupLayout, ControllersMountedTogetherAreOneHierarchy) {
  CgroupSnapshot snapshot = Hybrid();
  snapshot.mountinfo = V1Mount("memory", "memory") + V1Mount("pids", "pids") +
                       V1Mount("cpu,cpuacct", "cpu,cpuacct") + V1Mount("freezer", "freezer");
  snapshot.self_cgroup = "3:cpu,cpuacct:/user.slice\n";
  const auto layout = PlanCgroupLayout(snapshot);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->Find(kCpu), layout->Find(kCpuacct));
  EXPECT_EQ(BaseOf(layout, kCpu), "/sys/fs/cgroup/cpu,cpuacct/user.slice");
  EXPECT_EQ(BaseOf(layout, kIo), "none");
  EXPECT_EQ(BaseOf(layout, kDevices), "none");
  ASSERT_THAT(layout->warnings, SizeIs(2));
  EXPECT_THAT(layout->warnings[0], HasSubstr("io limits are not enforced"));
}

TEST(CgroupLayout, HybridTakesFromV2WhatV1Lacks) {
  CgroupSnapshot snapshot = Hybrid();
  snapshot.mountinfo = V1Mount("cpu", "cpu") + V2Mount("/sys/fs/cgroup/unified");
  snapshot.v2_top_controllers = "memory pids io\n";
  const auto layout = PlanCgroupLayout(snapshot);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(BaseOf(layout, kCpu), "/sys/fs/cgroup/cpu");
  EXPECT_EQ(BaseOf(layout, kMemory), "/sys/fs/cgroup/unified");
  EXPECT_EQ(layout->Find(kFreezer), layout->Find(kMemory));
  EXPECT_EQ(layout->Find(kDevices), layout->Find(kMemory)) << "by a program, in any v2 cgroup";
}

TEST(CgroupLayout, PureV2FromTheRootGoesToTheTop) {
  const auto layout = PlanCgroupLayout(PureV2("/"));
  ASSERT_TRUE(layout.ok());
  ASSERT_THAT(layout->hierarchies, SizeIs(1));
  EXPECT_EQ(layout->hierarchies[0].base, "/sys/fs/cgroup");
  EXPECT_THAT(layout->hierarchies[0].controllers, SizeIs(kCgroupControllers - 1));  // no cpuset
  EXPECT_FALSE(layout->hierarchies[0].base_is_own);
}

TEST(CgroupLayout, DelegatedServicesStayInsideTheirCgroup) {
  CgroupSnapshot snapshot = PureV2("/system.slice/pulga.service");
  snapshot.v2_own_delegated = true;
  const auto layout = PlanCgroupLayout(snapshot);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(BaseOf(layout, kMemory), "/sys/fs/cgroup/system.slice/pulga.service");
  EXPECT_TRUE(layout->hierarchies[0].base_is_own);
}

TEST(CgroupLayout, TheLeafOfADelegatedServiceMeansTheService) {
  CgroupSnapshot snapshot = PureV2("/system.slice/pulga.service/pulga-main");
  snapshot.v2_own_delegated = true;
  EXPECT_EQ(BaseOf(PlanCgroupLayout(snapshot), kPids), "/sys/fs/cgroup/system.slice/pulga.service");
}

TEST(MemoryMinChain, GoesFromTheServiceToBelowTheTop) {
  using ::testing::ElementsAre;
  const ::testing::Matcher<std::vector<std::string>> of_service =
      ElementsAre("/sys/fs/cgroup/system.slice/pulga.service", "/sys/fs/cgroup/system.slice");
  EXPECT_THAT(MemoryMinChain(PureV2("/system.slice/pulga.service")), of_service);
  EXPECT_THAT(MemoryMinChain(PureV2("/system.slice/pulga.service/pulga-main")), of_service);
  EXPECT_THAT(MemoryMinChain(PureV2("/")), ElementsAre()) << "the top keeps nothing for anybody";
  CgroupSnapshot inside = PureV2("/");
  inside.v2_top_is_root = false;
  EXPECT_THAT(MemoryMinChain(inside), ElementsAre("/sys/fs/cgroup"));
  CgroupSnapshot hybrid = Hybrid();
  hybrid.mountinfo = V1Mount("memory", "memory") + V2Mount("/sys/fs/cgroup/unified");
  EXPECT_THAT(MemoryMinChain(hybrid), ElementsAre()) << "v1 has none";
}

TEST(CgroupLayout, UndelegatedSessionsGoToTheTop) {
  EXPECT_EQ(BaseOf(PlanCgroupLayout(PureV2("/user.slice/session-1.scope")), kMemory),
            "/sys/fs/cgroup");
}

TEST(CgroupLayout, ACgroupNamespacesRootIsOurOwnToLeave) {
  CgroupSnapshot snapshot = PureV2("/");
  snapshot.v2_top_is_root = false;
  const auto layout = PlanCgroupLayout(snapshot);
  ASSERT_TRUE(layout.ok());
  EXPECT_TRUE(layout->hierarchies[0].base_is_own);
}

TEST(CgroupLayout, PartlyMountedHierarchiesAreFollowed) {
  CgroupSnapshot snapshot = Hybrid();
  snapshot.mountinfo =
      V1Mount("memory", "memory", "/docker/abc") + V1Mount("pids", "pids", "/other");
  snapshot.self_cgroup = "4:memory:/docker/abc/inner\n5:pids:/docker/abc\n";
  const auto layout = PlanCgroupLayout(snapshot);
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(BaseOf(layout, kMemory), "/sys/fs/cgroup/memory/inner");
  EXPECT_EQ(BaseOf(layout, kPids), "/sys/fs/cgroup/pids");
}

TEST(CgroupLayout, MissingMemoryIsAClearError) {
  CgroupSnapshot snapshot = PureV2("/");
  snapshot.v2_top_controllers = "cpu io pids\n";
  const auto layout = PlanCgroupLayout(snapshot);
  ASSERT_FALSE(layout.ok());
  EXPECT_EQ(layout.error().code, Code::kUnsupported);
  EXPECT_THAT(layout.error().message, HasSubstr("cgroup_enable=memory"));
}

TEST(CgroupLayout, NoCgroupsAtAllIsAClearError) {
  EXPECT_FALSE(PlanCgroupLayout(CgroupSnapshot{}).ok());
  CgroupSnapshot junk;
  junk.mountinfo = " - \n - cgroup\nx y z - cgroup2\n\n-\n";
  junk.self_cgroup = "::::\n\n:";
  EXPECT_FALSE(PlanCgroupLayout(junk).ok());
}

TEST(CgroupMounts, EscapesInMountPointsAreUndone) {
  const auto mounts = ParseCgroupMounts(V2Mount("/mnt/my\\040cgroups"));
  ASSERT_THAT(mounts, SizeIs(1));
  EXPECT_EQ(mounts[0].mount_point, "/mnt/my cgroups");
}

TEST(CgroupLayout, AUserHasOnlyTheCgroupItWasGiven) {
  CgroupSnapshot snapshot = PureV2("/user.slice/pulga.scope");
  snapshot.of_user = true;
  const auto none = PlanCgroupLayout(snapshot);
  ASSERT_TRUE(none.ok()) << "nothing must hold";
  EXPECT_THAT(none->hierarchies, IsEmpty());
  EXPECT_THAT(none->warnings, SizeIs(kCgroupControllers - 1));  // no cpuset
  snapshot.v2_own_delegated = true;
  const auto given = PlanCgroupLayout(snapshot);
  EXPECT_EQ(BaseOf(given, kMemory), "/sys/fs/cgroup/user.slice/pulga.scope");
  EXPECT_TRUE(given->hierarchies[0].base_is_own);
}

TEST(CgroupLayout, AUserGetsNothingOfV1) {
  CgroupSnapshot snapshot = Hybrid();
  snapshot.of_user = true;
  EXPECT_THAT(PlanCgroupLayout(snapshot)->hierarchies, IsEmpty());
}

}  // namespace
}  // namespace pulga
