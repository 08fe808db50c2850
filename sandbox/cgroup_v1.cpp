// The v1 dialect: kernel Documentation/admin-guide/cgroup-v1/{memory,pids,freezer,blkio}*.rst and
// scheduler/sched-bwc.rst.
#include <linux/magic.h>

#include <algorithm>

#include "sandbox/cgroup_dialect.h"

namespace pulga {
namespace {

constexpr uint32_t kMinShares = 2;
constexpr uint32_t kMaxShares = 262144;
constexpr uint64_t kSocketShare = 4;  // of the memory limit, on top of it
constexpr uint64_t kLeastSocketMemory = 1 << 20;

// v2's 1..10000 around 100 to v1's 2..262144 around 1024.
uint32_t SharesOf(uint32_t weight) {
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(uint64_t{weight} * 1024 / 100, kMinShares, kMaxShares));
}

void AddIo(std::vector<CgroupWrite>& writes, const char* file, uint64_t bps, DeviceNumber disk) {
  if (bps == 0) return;
  if (disk.major == 0) {
    writes.push_back({CgroupController::kIo, "", "", WriteNeed::kMayLack,
                      "io limits are not enforced: the data directory is on no single disk"});
    return;
  }
  writes.push_back(
      {CgroupController::kIo, file,
       std::to_string(disk.major) + ":" + std::to_string(disk.minor) + " " + std::to_string(bps),
       WriteNeed::kMayLack, "io limits are not enforced: this kernel has no blkio throttling"});
}

}  // namespace

const CgroupDialect& CgroupV1() {
  static const CgroupDialect dialect = {
      .version = CgroupVersion::kV1,
      .file_system = CGROUP_SUPER_MAGIC,
      .view_fstype = "cgroup",
      .attach_file = "tasks",
      .kill_file = "",
      .freeze_file = "freezer.state",
      .freeze_value = "FROZEN",
      .thaw_value = "THAWED",
      .oom_kills = {CgroupController::kMemory, "memory.oom_control", CounterFormat::kKeyOomKill},
      .memory_peak = {CgroupController::kMemory, "memory.max_usage_in_bytes",
                      CounterFormat::kNumber},
      .memory_current = {CgroupController::kMemory, "memory.usage_in_bytes",
                         CounterFormat::kNumber},
      .memory_stat = {CgroupController::kMemory, "memory.stat", CounterFormat::kNumber},
      .memory_keys = {"rss", "cache", "shmem", "", "swap"},
      .memory_swap = {},
      .memory_brake = "",
      .cpu_usage = {CgroupController::kCpuacct, "cpuacct.usage", CounterFormat::kNumber},
      .cpu_throttled = {CgroupController::kCpu, "cpu.stat", CounterFormat::kKeyThrottled},
      .tree_weight = {CgroupController::kCpu, "cpu.shares", "512", WriteNeed::kMayLack, ""},
      .inherited_files = {"cpuset.cpus", "cpuset.mems"},
  };
  return dialect;
}

std::vector<CgroupWrite> V1LimitWrites(const SandboxLimits& limits, DeviceNumber disk) {
  std::vector<CgroupWrite> writes;
  // memsw must never be below the plain limit, so the plain one comes first (both start unlimited).
  writes.push_back({CgroupController::kMemory, "memory.limit_in_bytes",
                    std::to_string(limits.memory_bytes), WriteNeed::kMust, ""});
  // What sockets buffer is counted apart and without it bounded for the whole board only.
  writes.push_back(
      {CgroupController::kMemory, "memory.kmem.tcp.limit_in_bytes",
       std::to_string(std::max(limits.memory_bytes / kSocketShare, kLeastSocketMemory)),
       WriteNeed::kMayLack,
       "what internet sockets buffer is not limited: this kernel does not count it"});
  if (limits.swap_bytes == 0) {
    writes.push_back(
        {CgroupController::kMemory, "memory.swappiness", "0", WriteNeed::kMayLack, "", kSwapLayer});
  }
  writes.push_back({CgroupController::kMemory, "memory.memsw.limit_in_bytes",
                    std::to_string(limits.memory_bytes + limits.swap_bytes), WriteNeed::kMayLack,
                    "the swap limit is not enforced: this kernel does not count swap "
                    "(swapaccount=1 on its command line)",
                    kSwapLayer});
  writes.push_back(
      {CgroupController::kPids, "pids.max", std::to_string(limits.pids), WriteNeed::kMust, ""});
  if (limits.cpu_millis != 0) {
    const CpuQuota quota = QuotaOf(limits.cpu_millis);
    const char* lacking = "the cpu limit is not enforced: this kernel has no cpu bandwidth control";
    writes.push_back({CgroupController::kCpu, "cpu.cfs_period_us", std::to_string(quota.period_us),
                      WriteNeed::kMayLack, lacking});
    writes.push_back({CgroupController::kCpu, "cpu.cfs_quota_us", std::to_string(quota.quota_us),
                      WriteNeed::kMayLack, lacking});
  }
  if (limits.cpu_weight != kDefaultCpuWeight) {
    writes.push_back({CgroupController::kCpu, "cpu.shares",
                      std::to_string(SharesOf(limits.cpu_weight)), WriteNeed::kMayLack,
                      "the cpu weight is not enforced: this kernel has no cpu controller",
                      kCpuWeightLayer});
  }
  AddIo(writes, "blkio.throttle.read_bps_device", limits.io_read_bps, disk);
  AddIo(writes, "blkio.throttle.write_bps_device", limits.io_write_bps, disk);
  return writes;
}

// force_empty asks for everything at once, mapped pages too, and tries 16 times more when nothing
// comes; a signal ends it. It has no amount, and needs no room in memsw: a page that goes to swap
// counts there already.
ReclaimPlan V1ReclaimPlan(const SandboxLimits& limits) {
  ReclaimPlan plan{"memory.force_empty", "0", "this kernel has no memory.force_empty", {}, {}};
  if (limits.swap_bytes != 0) return plan;
  CgroupWrite swappiness = {CgroupController::kMemory, "memory.swappiness", "100", WriteNeed::kMust,
                            ""};
  plan.before.push_back(swappiness);
  swappiness.value = "0";
  plan.after.push_back(swappiness);
  return plan;
}

// Before the cgroup has children: they inherit, and the kernel refuses it afterwards.
DeviceLimits V1DeviceLimits(std::span<const DeviceRule> rules) {
  DeviceLimits limits{{}, {}, "a list of the v1 controller"};
  limits.writes.push_back({CgroupController::kDevices, "devices.deny", "a", WriteNeed::kMust, ""});
  for (const DeviceRule& rule : rules) {
    limits.writes.push_back({CgroupController::kDevices, "devices.allow",
                             (rule.kind == DeviceKind::kBlock ? "b " : "c ") +
                                 std::to_string(rule.major) + ":" + std::to_string(rule.minor) +
                                 " rw",
                             WriteNeed::kMust, ""});
  }
  return limits;
}

}  // namespace pulga
