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
  const auto plan = TemplateMounts();
  EXPECT_EQ(Find(plan, "dev/null", MountKind::kDevice)->device, makedev(1, 3));
  EXPECT_EQ(Find(plan, "dev/urandom", MountKind::kDevice)->device, makedev(1, 9));
  for (const char* absent : {"dev/tty", "dev/console", "dev/ptmx", "dev/mem", "dev/kmsg"}) {
    EXPECT_EQ(Find(plan, absent, MountKind::kDevice), nullptr);
  }
  EXPECT_EQ(plan.back().target, "dev");
  EXPECT_EQ(plan.back().kind, MountKind::kRemount);
  EXPECT_TRUE(plan.back().flags & MS_RDONLY);
}

TEST(InstanceMounts, AreProcItsMasksAndTmp) {
  const std::vector<ProcEntry> proc = {
      {"acpi", true, true}, {"interrupts", false, true}, {"kcore", false, false}};
  const auto plan = InstanceMounts(SandboxLimits{}, proc);
  EXPECT_THAT(Targets(plan), ElementsAre("proc", "proc/acpi", "proc/interrupts", "tmp"));
  EXPECT_EQ(plan[1].source, "/dev/.mask");
  EXPECT_EQ(plan[2].source, "/dev/null");
}

TEST(InstanceMounts, ProcIsReadOnlyAndInert) {
  const auto plan = InstanceMounts(SandboxLimits{}, {});
  EXPECT_EQ(Find(plan, "proc")->flags, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
}

TEST(InstanceMounts, TmpIsBoundedInBytesAndFiles) {
  SandboxLimits limits;
  limits.tmp_bytes = 16 << 20;
  const auto plan = InstanceMounts(limits, {});
  EXPECT_EQ(Find(plan, "tmp")->data, "mode=1777,size=16777216,nr_inodes=4096");
  EXPECT_EQ(Find(plan, "tmp")->flags, MS_NOSUID | MS_NODEV);
}

TEST(InstanceMounts, NoTmpBytesNeverMeansUnlimited) {
  SandboxLimits limits;
  limits.tmp_bytes = 0;
  EXPECT_EQ(Find(InstanceMounts(limits, {}), "tmp")->data, "mode=1777,size=4096,nr_inodes=64");
}

TEST(InstanceMounts, EveryEntryNamesItsStep) {
  for (const auto& plan : {TemplateMounts(), SpawnerMounts(),
                           InstanceMounts(SandboxLimits{}, {{"keys", false, true}})}) {
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
