#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/mount_plan.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const MountEntry* Find(const std::vector<MountEntry>& plan, std::string_view target,
                       MountKind kind = MountKind::kMount) {
  for (const MountEntry& entry : plan) {
    if (entry.target == target && entry.kind == kind) return &entry;
  }
  return nullptr;
}

std::vector<std::string> Targets(const std::vector<MountEntry>& plan) {
  std::vector<std::string> out;
  for (const MountEntry& entry : plan) out.push_back(entry.target);
  return out;
}

TEST(TemplateMounts, DevHasFiveHarmlessDevicesAndEndsReadOnly) {
  const auto plan = TemplateMounts({});
  EXPECT_EQ(Find(plan, "dev/null", MountKind::kDevice)->device, makedev(1, 3));
  EXPECT_EQ(Find(plan, "dev/urandom", MountKind::kDevice)->device, makedev(1, 9));
  for (const char* absent : {"dev/tty", "dev/console", "dev/ptmx", "dev/mem", "dev/kmsg"}) {
    EXPECT_EQ(Find(plan, absent, MountKind::kDevice), nullptr);
  }
  EXPECT_TRUE(Find(plan, "dev", MountKind::kRemount)->flags & MS_RDONLY);
}

// No sysfs: nothing of it can be wrong that is not there.
TEST(TemplateMounts, SysIsATmpfsOfCopiesThatEndsReadOnly) {
  const auto plan = TemplateMounts({{{"devices/system/cpu/online", false, "0-1\n"},
                                     {"devices/system/cpu/cpu0", true},
                                     {"devices/system/cpu/cpu1", true}},
                                    {},
                                    ""});
  EXPECT_EQ(Find(plan, "sys")->fstype, "tmpfs");
  EXPECT_EQ(Find(plan, "sys/devices/system/cpu/online", MountKind::kFile)->data, "0-1\n");
  EXPECT_NE(Find(plan, "sys/devices/system/cpu/cpu1", MountKind::kDirectory), nullptr);
  EXPECT_NE(Find(plan, "sys/fs/cgroup", MountKind::kDirectory), nullptr);
  EXPECT_EQ(plan.back().target, "sys");
  EXPECT_EQ(plan.back().kind, MountKind::kRemount);
  EXPECT_TRUE(plan.back().flags & MS_RDONLY);
}

TEST(TemplateMounts, AVersionsOwnCgroupIsShownReadOnlyFromTheStart) {
  CgroupView view{"cgroup", "cpuset", "sys/fs/cgroup/cpuset", {}, true};
  const auto plan = TemplateMounts({{}, {view}, "/host/cpuset/v1/spawner"});
  const MountEntry* bind = Find(plan, "sys/fs/cgroup/cpuset", MountKind::kBind);
  EXPECT_EQ(bind->source, "/host/cpuset/v1/spawner");
  EXPECT_TRUE(bind->flags & MS_RDONLY);
  EXPECT_EQ(Find(InstanceMounts({{}, {}, {view}, 0, 0}), "sys/fs/cgroup/cpuset"), nullptr);
}

TEST(InstanceMounts, ShowTheirCgroupReadOnly) {
  const CgroupView view{"cgroup2", "", "sys/fs/cgroup", {}, false};
  const auto plan = InstanceMounts({{}, {}, {view}, 0, 0});
  EXPECT_EQ(Find(plan, "sys/fs/cgroup")->flags, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

TEST(InstanceMounts, RunIsTheUsersAndSharedMemoryNoLargerThanTheLimit) {
  SandboxLimits limits;
  limits.memory_bytes = 8 << 20;
  const auto plan = InstanceMounts({limits, {}, {}, 1000, 1001});
  EXPECT_EQ(Find(plan, "run")->data, "mode=755,uid=1000,gid=1001,size=1048576,nr_inodes=256");
  EXPECT_THAT(Find(plan, "dev/shm")->data, HasSubstr("size=8388608,"));
  EXPECT_TRUE(Find(plan, "dev/shm")->flags & MS_NOEXEC);
  EXPECT_TRUE(Find(plan, "run")->flags & MS_NOEXEC);
}

TEST(InstanceMounts, SharedMemoryIs64MibAtMost) {
  SandboxLimits limits;
  limits.memory_bytes = 1 << 30;
  EXPECT_THAT(Find(InstanceMounts({limits, {}, {}, 0, 0}), "dev/shm")->data,
              HasSubstr("size=67108864,"));
}

TEST(InstanceMounts, AreProcItsMasksAndTmp) {
  const std::vector<ProcEntry> proc = {
      {"acpi", true, true}, {"interrupts", false, true}, {"kcore", false, false}};
  const auto plan = InstanceMounts({{}, proc, {}, 0, 0});
  EXPECT_THAT(Targets(plan),
              ElementsAre("proc", "proc/acpi", "proc/interrupts", "tmp", "run", "dev/shm"));
  EXPECT_EQ(plan[1].source, "/dev/.mask");
  EXPECT_EQ(plan[2].source, "/dev/null");
}

TEST(InstanceMounts, LeadToTheSecretsFromRunWhereThereAreAny) {
  InstanceMountOptions options;
  EXPECT_EQ(Find(InstanceMounts(options), "run/secrets"), nullptr);
  options.secrets = true;
  const auto plan = InstanceMounts(options);
  const MountEntry* link = Find(plan, "run/secrets", MountKind::kSymlink);
  ASSERT_NE(link, nullptr);
  EXPECT_EQ(link->source, "/var/openfaas/secrets");
  EXPECT_GT(link, Find(plan, "run")) << "it is made in what is mounted there";
}

TEST(InstanceMounts, ProcIsReadOnlyAndInert) {
  const auto plan = InstanceMounts({});
  EXPECT_EQ(Find(plan, "proc")->flags, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

TEST(InstanceMounts, TmpIsBoundedInBytesAndFiles) {
  SandboxLimits limits;
  limits.tmp_bytes = 16 << 20;
  const auto plan = InstanceMounts({limits, {}, {}, 0, 0});
  EXPECT_EQ(Find(plan, "tmp")->data, "mode=1777,uid=0,gid=0,size=16777216,nr_inodes=4096");
  EXPECT_EQ(Find(plan, "tmp")->flags, MS_NOSUID | MS_NODEV);
}

TEST(InstanceMounts, NoTmpBytesNeverMeansUnlimited) {
  SandboxLimits limits;
  limits.tmp_bytes = 0;
  EXPECT_EQ(Find(InstanceMounts({limits, {}, {}, 0, 0}), "tmp")->data,
            "mode=1777,uid=0,gid=0,size=4096,nr_inodes=64");
}

TEST(InstanceMounts, EveryEntryNamesItsStep) {
  for (const auto& plan : {TemplateMounts({}), SpawnerMounts(),
                           InstanceMounts({{}, {{"keys", false, true}}, {}, 0, 0})}) {
    for (const MountEntry& entry : plan) {
      EXPECT_FALSE(entry.step.empty()) << entry.target;
      EXPECT_FALSE(entry.target.starts_with('/')) << entry.target;
    }
  }
}

TEST(ProcEntries, AreThoseThatExistWithWhoMayReadThem) {
  const TempDir dir = TempDir::Create("/tmp/pulga-mount-test-").value();
  ASSERT_TRUE(WriteFile(dir.path() + "/interrupts", "", 0444).ok());
  ASSERT_TRUE(WriteFile(dir.path() + "/timer_list", "", 0400).ok());
  ASSERT_TRUE(WriteFile(dir.path() + "/version", "", 0444).ok());
  ASSERT_TRUE(MakeDirs(dir.path() + "/acpi", 0555).ok());
  const auto entries = ReadProcEntries(dir.path());
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_TRUE(entries[0].name == "acpi" && entries[0].directory && entries[0].readable_by_others);
  EXPECT_TRUE(entries[1].name == "interrupts" && entries[1].readable_by_others);
  EXPECT_TRUE(entries[2].name == "timer_list" && !entries[2].readable_by_others);
}

}  // namespace
}  // namespace pulga
