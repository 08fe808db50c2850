// The mechanism over fake trees of plain files: which file gets which value, on v1, v2 and hybrids.
// What a real kernel makes of it is in tests/kernel.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/cgroup.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using enum CgroupController;

constexpr const char* kV1Files[] = {"tasks",
                                    "cgroup.procs",
                                    "memory.limit_in_bytes",
                                    "memory.memsw.limit_in_bytes",
                                    "memory.kmem.tcp.limit_in_bytes",
                                    "memory.swappiness",
                                    "memory.oom_control",
                                    "memory.max_usage_in_bytes",
                                    "memory.usage_in_bytes",
                                    "pids.max",
                                    "cpu.cfs_period_us",
                                    "cpu.cfs_quota_us",
                                    "cpu.shares",
                                    "cpuacct.usage",
                                    "freezer.state"};
constexpr const char* kV2Files[] = {"cgroup.procs",     "cgroup.subtree_control",
                                    "cgroup.freeze",    "memory.max",
                                    "memory.peak",      "memory.swap.max",
                                    "memory.oom.group", "memory.events",
                                    "memory.current",   "pids.max",
                                    "cpu.max",          "cpu.weight",
                                    "cpu.stat",         "io.max"};

class FakeCgroups : public ::testing::Test {
 protected:
  FakeCgroups() : dir_(TempDir::Create("/tmp/pulga-cgroup-test-").value()) {
    options_.version_id = 7;
    options_.slots = 2;
    options_.limits.memory_bytes = 32 << 20;
    options_.limits.cpu_millis = 250;
    options_.spawner_uid = geteuid();
    options_.disk = {8, 0};
  }

  // A hierarchy whose cgroups exist already, with empty files, since nobody conjures them up here.
  template <size_t N>
  CgroupHierarchy Fake(CgroupVersion version, std::vector<CgroupController> controllers,
                       const char* const (&files)[N]) {
    const std::string base = dir_.path() + "/h" + std::to_string(++count_);
    for (const char* cgroup :
         {"", "/t", "/t/v7", "/t/v7/spawner", "/t/v7/slot-0", "/t/v7/slot-1", "/t/unpack-1"}) {
      EXPECT_TRUE(MakeDirs(base + cgroup).ok());
      for (const char* file : files) {
        EXPECT_TRUE(WriteFile(base + cgroup + "/" + file, "").ok());
      }
    }
    return {version, std::move(controllers), base, false};
  }
  CgroupHierarchy FakeV1(std::vector<CgroupController> controllers) {
    return Fake(CgroupVersion::kV1, std::move(controllers), kV1Files);
  }
  CgroupHierarchy FakeV2(std::vector<CgroupController> controllers) {
    return Fake(CgroupVersion::kV2, std::move(controllers), kV2Files);
  }
  std::string Read(const CgroupHierarchy& hierarchy, const std::string& file) {
    const auto text = ReadFile(hierarchy.base + "/" + file);
    return text.ok() ? *text : "absent";
  }

  TempDir dir_;
  int count_ = 0;
  VersionCgroupOptions options_;
};

TEST_F(FakeCgroups, V1WritesEachControllerInItsOwnHierarchy) {
  const CgroupHierarchy memory = FakeV1({kMemory});
  const CgroupHierarchy rest = FakeV1({kPids, kCpu, kCpuacct, kFreezer});
  auto tree = CgroupTree::Open("t", {{memory, rest}, {}}).value();
  const auto version = tree->CreateVersion(options_);
  ASSERT_TRUE(version.ok()) << version.error().message;
  EXPECT_EQ(Read(memory, "t/v7/slot-1/memory.limit_in_bytes"), "33554432");
  EXPECT_EQ(Read(memory, "t/v7/slot-1/pids.max"), "");
  EXPECT_EQ(Read(rest, "t/v7/slot-0/pids.max"), "128");
  EXPECT_EQ(Read(rest, "t/v7/slot-0/cpu.cfs_quota_us"), "25000");
  EXPECT_EQ(Read(rest, "t/v7/spawner/pids.max"), "1024");
  EXPECT_EQ(Read(rest, "t/v7/spawner/cpu.cfs_quota_us"), "");
  EXPECT_THAT(version->slots, SizeIs(2));
  EXPECT_THAT(version->slots[0].join.v1_tasks, SizeIs(2));
  EXPECT_FALSE(version->slots[0].join.v2_dir.valid());
  EXPECT_THAT(version->warnings, IsEmpty());
}

TEST_F(FakeCgroups, V2EnablesControllersDownToTheSlots) {
  const CgroupHierarchy all = FakeV2({kMemory, kPids, kCpu, kCpuacct, kFreezer, kIo});
  auto tree = CgroupTree::Open("t", {{all}, {}}).value();
  const auto version = tree->CreateVersion(options_);
  ASSERT_TRUE(version.ok()) << version.error().message;
  for (const char* cgroup : {"", "t/", "t/v7/"}) {
    EXPECT_EQ(Read(all, std::string(cgroup) + "cgroup.subtree_control"), "+memory +pids +cpu +io");
  }
  EXPECT_EQ(Read(all, "t/v7/slot-0/cgroup.subtree_control"), "");
  EXPECT_EQ(Read(all, "t/v7/slot-0/memory.max"), "33554432");
  EXPECT_EQ(Read(all, "t/v7/slot-0/cpu.max"), "25000 100000");
  EXPECT_TRUE(version->slots[1].join.v2_dir.valid());
  EXPECT_THAT(version->slots[1].join.v1_tasks, IsEmpty());
}

TEST_F(FakeCgroups, V2LeavesEnabledControllersAlone) {
  const CgroupHierarchy all = FakeV2({kMemory, kPids, kIo});
  const std::string control = all.base + "/cgroup.subtree_control";
  ASSERT_TRUE(WriteFile(control, "cpuset io memory pids\n").ok());
  ASSERT_TRUE(CgroupTree::Open("t", {{all}, {}}).ok());
  EXPECT_EQ(*ReadFile(control), "cpuset io memory pids\n");
  // "memory_x" is no memory.
  ASSERT_TRUE(WriteFile(control, "memoryx").ok());
  ASSERT_TRUE(CgroupTree::Open("t", {{all}, {}}).ok());
  EXPECT_THAT(*ReadFile(control), HasSubstr("+memory"));
}

TEST_F(FakeCgroups, OnlyTheRightsToJoinGoToTheSpawner) {
  if (geteuid() != 0) return;  // chown is root's
  options_.spawner_uid = 12345;
  const CgroupHierarchy all = FakeV2({kMemory, kPids});
  auto tree = CgroupTree::Open("t", {{all}, {}}).value();
  ASSERT_TRUE(tree->CreateVersion(options_).ok());
  const auto owner = [&](const std::string& file) {
    struct stat st = {};
    EXPECT_EQ(stat((all.base + "/t/v7/" + file).c_str(), &st), 0);
    return st.st_uid;
  };
  EXPECT_EQ(owner("cgroup.procs"), 12345U);
  EXPECT_EQ(owner("slot-1/cgroup.procs"), 12345U);
  EXPECT_EQ(owner("slot-1/memory.max"), 0U);
  EXPECT_EQ(owner("slot-1"), 0U);
  EXPECT_EQ(owner("cgroup.subtree_control"), 0U);
}

TEST_F(FakeCgroups, IoHierarchiesAreJoinedOnlyForIoLimits) {
  const CgroupHierarchy rest = FakeV1({kMemory, kPids});
  const CgroupHierarchy io = FakeV1({kIo});
  auto tree = CgroupTree::Open("t", {{rest, io}, {}}).value();
  EXPECT_THAT(tree->CreateVersion(options_)->slots[0].join.v1_tasks, SizeIs(1));
  options_.limits.io_read_bps = 1000;
  const auto version = tree->CreateVersion(options_);
  EXPECT_THAT(version->slots[0].join.v1_tasks, SizeIs(2));
  // The fake has no throttle file: as on a kernel without throttling.
  EXPECT_THAT(version->warnings, Contains(HasSubstr("no blkio throttling")));
}

TEST_F(FakeCgroups, WhatCannotBeEnforcedIsAWarningSaidOnce) {
  const CgroupHierarchy rest = FakeV1({kMemory, kPids});
  auto tree = CgroupTree::Open("t", {{rest}, {}}).value();
  unlink((rest.base + "/t/v7/slot-0/memory.memsw.limit_in_bytes").c_str());
  unlink((rest.base + "/t/v7/slot-1/memory.memsw.limit_in_bytes").c_str());
  EXPECT_THAT(
      tree->CreateVersion(options_)->warnings,
      ElementsAre(HasSubstr("swap limit is not enforced"), HasSubstr("cpu limit is not enforced")));
}

TEST_F(FakeCgroups, AMissingMandatoryFileFailsAndNamesIt) {
  const CgroupHierarchy rest = FakeV1({kMemory, kPids});
  auto tree = CgroupTree::Open("t", {{rest}, {}}).value();
  unlink((rest.base + "/t/v7/slot-1/pids.max").c_str());
  const auto version = tree->CreateVersion(options_);
  ASSERT_FALSE(version.ok());
  EXPECT_THAT(version.error().message, HasSubstr("v7/slot-1/pids.max"));
}

TEST_F(FakeCgroups, FreezeAndThawSpeakTheRightDialect) {
  const CgroupHierarchy v1 = FakeV1({kMemory, kPids, kFreezer});
  options_.freezable = true;
  auto tree = CgroupTree::Open("t", {{v1}, {}}).value();
  auto version = tree->CreateVersion(options_);
  ASSERT_TRUE(version.ok()) << version.error().message;
  SlotFreezer first(std::move(version->slots[1].freezer), CgroupV1());
  ASSERT_TRUE(first.Freeze().ok());
  EXPECT_EQ(Read(v1, "t/v7/slot-1/freezer.state"), "FROZEN");
  EXPECT_TRUE(first.frozen());
  tree->ThawVersion(7);
  EXPECT_EQ(Read(v1, "t/v7/slot-1/freezer.state"), "THAWED");
  ASSERT_TRUE(first.Freeze().ok());
  ASSERT_TRUE(first.Thaw().ok());
  EXPECT_EQ(Read(v1, "t/v7/slot-1/freezer.state"), "THAWED");
  EXPECT_FALSE(first.frozen());
  const CgroupHierarchy v2 = FakeV2({kMemory, kPids, kFreezer});
  tree = CgroupTree::Open("t", {{v2}, {}}).value();
  version = tree->CreateVersion(options_);
  ASSERT_TRUE(version.ok()) << version.error().message;
  SlotFreezer second(std::move(version->slots[0].freezer), CgroupV2());
  ASSERT_TRUE(second.Freeze().ok());
  EXPECT_EQ(Read(v2, "t/v7/slot-0/cgroup.freeze"), "1");
}

TEST_F(FakeCgroups, WithoutAFreezerFreezingIsUnsupported) {
  options_.freezable = true;
  auto tree = CgroupTree::Open("t", {{FakeV1({kMemory, kPids})}, {}}).value();
  auto version = tree->CreateVersion(options_);
  ASSERT_TRUE(version.ok()) << version.error().message;
  EXPECT_FALSE(version->slots[0].freezer.state.valid());
  SlotFreezer none;
  EXPECT_EQ(none.Freeze().error().code, Code::kUnsupported);
  EXPECT_EQ(none.Processes(), 0U);
}

TEST_F(FakeCgroups, AFreezerIsOnlyTakenFromACgroupFileSystem) {
  const UniqueFd file(open("/dev/null", O_WRONLY | O_CLOEXEC));
  EXPECT_EQ(SlotFreezer::Adopt({UniqueFd(dup(file.get())), UniqueFd(dup(file.get()))}).error().code,
            Code::kInvalidArgument);
}

TEST_F(FakeCgroups, CountersAreDifferencesSinceTheInstanceBegan) {
  const CgroupHierarchy all = FakeV1({kMemory, kPids, kCpuacct});
  auto tree = CgroupTree::Open("t", {{all}, {}}).value();
  auto version = tree->CreateVersion(options_);
  const std::string slot = all.base + "/t/v7/slot-0/";
  ASSERT_TRUE(WriteFile(slot + "memory.oom_control", "oom_kill 2\n").ok());
  ASSERT_TRUE(WriteFile(slot + "cpuacct.usage", "1000\n").ok());
  SlotCounters counters(std::move(version->slots[0].counters));
  counters.Begin();
  EXPECT_EQ(*ReadFile(slot + "memory.max_usage_in_bytes"), "0");  // reset
  EXPECT_EQ(counters.End().oom_kills, 0U);
  ASSERT_TRUE(WriteFile(slot + "memory.oom_control", "oom_kill 3\n").ok());
  ASSERT_TRUE(WriteFile(slot + "cpuacct.usage", "5000\n").ok());
  ASSERT_TRUE(WriteFile(slot + "memory.max_usage_in_bytes", "777\n").ok());
  ASSERT_TRUE(WriteFile(slot + "memory.usage_in_bytes", "42\n").ok());
  EXPECT_EQ(counters.End().oom_kills, 1U);
  EXPECT_EQ(counters.End().cpu_time, Duration(4000));
  EXPECT_EQ(counters.End().memory_peak_bytes, 777U);
  EXPECT_EQ(counters.CurrentBytes(), 42U);
}

TEST_F(FakeCgroups, JoiningWritesZeroToEveryTasksFile) {
  const CgroupHierarchy a = FakeV1({kMemory});
  const CgroupHierarchy b = FakeV1({kPids});
  auto tree = CgroupTree::Open("t", {{a, b}, {}}).value();
  auto version = tree->CreateVersion(options_);
  std::vector<int> fds;
  for (const UniqueFd& fd : version->slots[1].join.v1_tasks) fds.push_back(fd.get());
  EXPECT_EQ(JoinCgroup(fds), 0);
  EXPECT_EQ(Read(a, "t/v7/slot-1/tasks") + Read(b, "t/v7/slot-1/tasks"), "00");
  EXPECT_EQ(Read(b, "t/v7/slot-0/tasks"), "");
  EXPECT_EQ(JoinCgroup(std::vector<int>{-1}), EBADF);
}

TEST_F(FakeCgroups, JobsHaveLimitsAndHarmlessNames) {
  const CgroupHierarchy all = FakeV2({kMemory, kPids});
  auto tree = CgroupTree::Open("t", {{all}, {}}).value();
  ASSERT_TRUE(tree->CreateJob("unpack-1", options_.limits).ok());
  EXPECT_EQ(Read(all, "t/unpack-1/memory.max"), "33554432");
  for (const char* name : {"", "..", "a/b", "/x"}) {
    EXPECT_FALSE(tree->CreateJob(name, options_.limits).ok()) << name;
  }
}

TEST(CgroupTreeName, IsStableAndDiffersByDirectory) {
  EXPECT_EQ(CgroupTreeName("/var/lib/pulga"), CgroupTreeName("/var/lib/pulga"));
  EXPECT_NE(CgroupTreeName("/var/lib/pulga"), CgroupTreeName("/var/lib/pulga2"));
  EXPECT_THAT(CgroupTreeName("/x"), SizeIs(6 + 16));
}

}  // namespace
}  // namespace pulga
