#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/cgroup_dialect.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

SandboxLimits Limits() {
  SandboxLimits limits;
  limits.memory_bytes = 64 << 20;
  limits.swap_bytes = 8 << 20;
  limits.cpu_millis = 500;
  limits.cpu_weight = 50;
  limits.pids = 128;
  limits.io_read_bps = 1000000;
  limits.io_write_bps = 2000000;
  return limits;
}

// "file = value", in order.
std::vector<std::string> Lines(const std::vector<CgroupWrite>& writes) {
  std::vector<std::string> out;
  for (const CgroupWrite& write : writes) out.push_back(write.file + " = " + write.value);
  return out;
}

TEST(CgroupV1, WritesEveryLimitTheSwapOneAfterTheMemoryOne) {
  EXPECT_THAT(
      Lines(V1LimitWrites(Limits(), {8, 16})),
      ElementsAre("memory.limit_in_bytes = 67108864", "memory.kmem.tcp.limit_in_bytes = 16777216",
                  "memory.memsw.limit_in_bytes = 75497472", "pids.max = 128",
                  "cpu.cfs_period_us = 100000", "cpu.cfs_quota_us = 50000", "cpu.shares = 512",
                  "blkio.throttle.read_bps_device = 8:16 1000000",
                  "blkio.throttle.write_bps_device = 8:16 2000000"));
}

TEST(CgroupV2, WritesEveryLimit) {
  EXPECT_THAT(Lines(V2LimitWrites(Limits(), {8, 16})),
              ElementsAre("memory.max = 67108864", "memory.swap.max = 8388608",
                          "memory.oom.group = 1", "pids.max = 128", "cpu.max = 50000 100000",
                          "cpu.weight = 50", "io.max = 8:16 rbps=1000000 wbps=2000000"));
}

TEST(CgroupV1, WithoutSwapNothingIsSwappedOut) {
  const auto lines = Lines(V1LimitWrites(SandboxLimits{}, {}));
  EXPECT_THAT(lines,
              ElementsAre("memory.limit_in_bytes = 67108864",
                          "memory.kmem.tcp.limit_in_bytes = 16777216", "memory.swappiness = 0",
                          "memory.memsw.limit_in_bytes = 67108864", "pids.max = 128"));
}

TEST(CgroupV2, UnlimitedCpuAndIoAreLeftAlone) {
  EXPECT_THAT(Lines(V2LimitWrites(SandboxLimits{}, {})),
              ElementsAre("memory.max = 67108864", "memory.swap.max = 0", "memory.oom.group = 1",
                          "pids.max = 128"));
}

TEST(CgroupDialects, AllFunctionsTogetherWeighHalfOfAnybodyElse) {
  EXPECT_EQ(CgroupV1().tree_weight.value, "512");
  EXPECT_EQ(CgroupV2().tree_weight.value, "50");
}

TEST(CgroupDialects, OneSidedIoLimitsWriteOneSide) {
  SandboxLimits limits;
  limits.io_write_bps = 5;
  EXPECT_EQ(V2LimitWrites(limits, {8, 0}).back().value, "8:0 wbps=5");
  EXPECT_EQ(V1LimitWrites(limits, {8, 0}).back().file, "blkio.throttle.write_bps_device");
}

TEST(CgroupDialects, IoLimitsWithoutADiskAreAWarning) {
  SandboxLimits limits;
  limits.io_read_bps = 5;
  for (const auto version : {CgroupVersion::kV1, CgroupVersion::kV2}) {
    const CgroupWrite write = LimitWrites(version, limits, {}).back();
    EXPECT_EQ(write.file, "");
    EXPECT_EQ(write.need, WriteNeed::kMayLack);
    EXPECT_THAT(write.lacking, HasSubstr("io limits are not enforced"));
  }
}

TEST(CgroupDialects, MemoryAndPidsAreNeverOptional) {
  for (const auto version : {CgroupVersion::kV1, CgroupVersion::kV2}) {
    int mandatory = 0;
    for (const CgroupWrite& write : LimitWrites(version, Limits(), {8, 0})) {
      mandatory += write.need == WriteNeed::kMust;
    }
    EXPECT_EQ(mandatory, 2);
  }
}

TEST(CgroupDialects, QuotasStayAboveTheKernelsMillisecond) {
  EXPECT_EQ(QuotaOf(1000).quota_us, 100000U);
  EXPECT_EQ(QuotaOf(10).quota_us, 1000U);
  EXPECT_EQ(QuotaOf(10).period_us, 100000U);
  EXPECT_EQ(QuotaOf(1).quota_us, 1000U);
  EXPECT_EQ(QuotaOf(1).period_us, 1000000U);
  EXPECT_EQ(QuotaOf(64000).quota_us, 6400000U);
}

TEST(CgroupDialects, WeightsStayInsideTheKernelsRange) {
  SandboxLimits limits;
  limits.cpu_weight = 10000;
  EXPECT_EQ(V1LimitWrites(limits, {}).back().value, "102400");
  limits.cpu_weight = 1;
  EXPECT_EQ(V1LimitWrites(limits, {}).back().value, "10");
  limits.cpu_weight = 0;
  EXPECT_EQ(V1LimitWrites(limits, {}).back().value, "2");
  EXPECT_EQ(V2LimitWrites(limits, {}).back().value, "1");
}

TEST(CgroupDialects, WriteOnlyWhatAResizeChangesAndNeverMemoryAboveMemoryAndSwap) {
  SandboxLimits small;
  small.memory_bytes = 64 << 20;
  small.cpu_millis = 100;
  SandboxLimits large = small;
  large.memory_bytes = 128 << 20;
  large.cpu_millis = 200;
  EXPECT_THAT(Lines(ResizeWrites(CgroupVersion::kV1, small, large)),
              ElementsAre("cpu.cfs_quota_us = 20000", "memory.memsw.limit_in_bytes = 134217728",
                          "memory.kmem.tcp.limit_in_bytes = 33554432",
                          "memory.limit_in_bytes = 134217728"));
  EXPECT_THAT(
      Lines(ResizeWrites(CgroupVersion::kV1, large, small)),
      ElementsAre("memory.limit_in_bytes = 67108864", "memory.kmem.tcp.limit_in_bytes = 16777216",
                  "memory.memsw.limit_in_bytes = 67108864", "cpu.cfs_quota_us = 10000"));
  EXPECT_THAT(Lines(ResizeWrites(CgroupVersion::kV2, large, small)),
              ElementsAre("memory.max = 67108864", "cpu.max = 10000 100000"));
  EXPECT_THAT(ResizeWrites(CgroupVersion::kV2, small, small), ElementsAre());
}

TEST(CgroupCounters, AreParsedFromBothVersions) {
  const std::string v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
  const std::string v2 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 1\n";
  EXPECT_EQ(ParseCounter(CounterFormat::kKeyOomKill, v1), 3U);
  EXPECT_EQ(ParseCounter(CounterFormat::kKeyOomKill, v2), 3U);
  EXPECT_EQ(ParseCounter(CounterFormat::kNumber, "4096\n"), 4096U);
  EXPECT_EQ(ParseCounter(CounterFormat::kKeyUsageUsec, "usage_usec 15\nuser_usec 5\n"), 15000U);
  EXPECT_EQ(ParseCounter(CounterFormat::kKeyThrottled,
                         "nr_periods 9\nnr_throttled 4\nthrottled_time 1\n"),
            4U);
  EXPECT_EQ(CgroupV1().cpu_throttled.file, "cpu.stat");
  EXPECT_EQ(CgroupV2().cpu_throttled.file, "cpu.stat");
}

TEST(CgroupCounters, NonsenseIsNothing) {
  EXPECT_FALSE(ParseCounter(CounterFormat::kNumber, ""));
  EXPECT_FALSE(ParseCounter(CounterFormat::kNumber, "max\n"));
  EXPECT_FALSE(ParseCounter(CounterFormat::kKeyOomKill, "oom_kill_disable 0\n"));
  EXPECT_FALSE(ParseCounter(CounterFormat::kKeyUsageUsec, "usage_usec many\n"));
}

TEST(CgroupDialects, OpenASlotWithoutSwapToItForAReclaimAndCloseItAgain) {
  SandboxLimits limits;
  limits.memory_bytes = 64 << 20;
  const ReclaimPlan v1 = ReclaimPlanFor(CgroupVersion::kV1, limits);
  EXPECT_EQ(v1.file, "memory.force_empty");
  EXPECT_THAT(Lines(v1.before), ElementsAre("memory.swappiness = 100"));
  EXPECT_THAT(Lines(v1.after), ElementsAre("memory.swappiness = 0"));
  const ReclaimPlan v2 = ReclaimPlanFor(CgroupVersion::kV2, limits);
  EXPECT_EQ(v2.file, "memory.reclaim");
  EXPECT_THAT(Lines(v2.before), ElementsAre("memory.swap.max = 67108864"));
  EXPECT_THAT(Lines(v2.after), ElementsAre("memory.swap.max = 0"));
  limits.swap_bytes = limits.memory_bytes;
  EXPECT_THAT(ReclaimPlanFor(CgroupVersion::kV1, limits).before, ElementsAre());
  EXPECT_THAT(ReclaimPlanFor(CgroupVersion::kV2, limits).before, ElementsAre());
}

TEST(CgroupDialects, TellMemoryInPartsWithTmpfsAsTheInstancesOwn) {
  const InstanceMemory v2 = ParseMemoryStat(
      CgroupV2().memory_keys, "anon 1000\nfile 500\nkernel 70\nkernel_stack 16\nshmem 200\n", 1600);
  EXPECT_EQ(v2.anon, 1200U);
  EXPECT_EQ(v2.file, 300U);
  EXPECT_EQ(v2.kernel, 70U);
  EXPECT_EQ(v2.total, 1600U);
  const InstanceMemory v1 = ParseMemoryStat(
      CgroupV1().memory_keys, "cache 500\nrss 1000\nrss_huge 0\nshmem 200\nswap 4096\n", 1600);
  EXPECT_EQ(v1.anon, 1200U);
  EXPECT_EQ(v1.file, 300U);
  EXPECT_EQ(v1.kernel, 100U);
  EXPECT_EQ(v1.swapped, 4096U);
  EXPECT_EQ(ParseMemoryStat(CgroupV2().memory_keys, "anon 10\nfile 5\n", 3).kernel, 0U);
}

}  // namespace
}  // namespace pulga
