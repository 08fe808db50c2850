// The v2 dialect: kernel Documentation/admin-guide/cgroup-v2.rst. memory.high is never set
// but for the moment of a resize: it throttles instead of killing, and a throttled function looks
// like a hanging one.
#include <linux/magic.h>

#include <algorithm>

#include "sandbox/cgroup_dialect.h"

namespace pulga {
namespace {

std::string IoMax(const SandboxLimits& limits, DeviceNumber disk) {
  std::string value = std::to_string(disk.major) + ":" + std::to_string(disk.minor);
  if (limits.io_read_bps != 0) value += " rbps=" + std::to_string(limits.io_read_bps);
  if (limits.io_write_bps != 0) value += " wbps=" + std::to_string(limits.io_write_bps);
  return value;
}

}  // namespace

const CgroupDialect& CgroupV2() {
  static const CgroupDialect dialect = {
      .version = CgroupVersion::kV2,
      .file_system = CGROUP2_SUPER_MAGIC,
      .view_fstype = "cgroup2",
      .attach_file = "",
      .kill_file = "cgroup.kill",
      .freeze_file = "cgroup.freeze",
      .freeze_value = "1",
      .thaw_value = "0",
      .oom_kills = {CgroupController::kMemory, "memory.events", CounterFormat::kKeyOomKill},
      .memory_peak = {CgroupController::kMemory, "memory.peak", CounterFormat::kNumber},
      .memory_current = {CgroupController::kMemory, "memory.current", CounterFormat::kNumber},
      .memory_stat = {CgroupController::kMemory, "memory.stat", CounterFormat::kNumber},
      .memory_keys = {"anon", "file", "shmem", "kernel", ""},
      .memory_swap = {CgroupController::kMemory, "memory.swap.current", CounterFormat::kNumber},
      .memory_brake = "memory.high",
      .cpu_usage = {CgroupController::kCpuacct, "cpu.stat", CounterFormat::kKeyUsageUsec},
      .cpu_throttled = {CgroupController::kCpu, "cpu.stat", CounterFormat::kKeyThrottled},
      .tree_weight = {CgroupController::kCpu, "cpu.weight", "50", WriteNeed::kMayLack, ""},
  };
  return dialect;
}

std::vector<CgroupWrite> V2LimitWrites(const SandboxLimits& limits, DeviceNumber disk) {
  std::vector<CgroupWrite> writes;
  writes.push_back({CgroupController::kMemory, "memory.max", std::to_string(limits.memory_bytes),
                    WriteNeed::kMust, ""});
  writes.push_back({CgroupController::kMemory, "memory.swap.max", std::to_string(limits.swap_bytes),
                    WriteNeed::kMayLack,
                    "the swap limit is not enforced: this kernel does not count swap", kSwapLayer});
  writes.push_back({CgroupController::kMemory, "memory.oom.group", "1", WriteNeed::kMayLack, "",
                    kOomGroupLayer});
  writes.push_back(
      {CgroupController::kPids, "pids.max", std::to_string(limits.pids), WriteNeed::kMust, ""});
  if (limits.cpu_millis != 0) {
    const CpuQuota quota = QuotaOf(limits.cpu_millis);
    writes.push_back({CgroupController::kCpu, "cpu.max",
                      std::to_string(quota.quota_us) + " " + std::to_string(quota.period_us),
                      WriteNeed::kMayLack,
                      "the cpu limit is not enforced: this kernel has no cpu bandwidth control"});
  }
  if (limits.cpu_weight != kDefaultCpuWeight) {
    writes.push_back(
        {CgroupController::kCpu, "cpu.weight",
         std::to_string(std::clamp(limits.cpu_weight, 1U, 10000U)), WriteNeed::kMayLack,
         "the cpu weight is not enforced: this kernel has no cpu controller", kCpuWeightLayer});
  }
  if (limits.io_read_bps == 0 && limits.io_write_bps == 0) return writes;
  if (disk.major == 0) {
    writes.push_back({CgroupController::kIo, "", "", WriteNeed::kMayLack,
                      "io limits are not enforced: the data directory is on no single disk"});
  } else {
    writes.push_back({CgroupController::kIo, "io.max", IoMax(limits, disk), WriteNeed::kMayLack,
                      "io limits are not enforced: this kernel has no io.max"});
  }
  return writes;
}

// A piece at a time, so that whoever asks can stop in between. What lies in swap when the limit
// goes back to what it was stays there: only nothing more gets in.
ReclaimPlan V2ReclaimPlan(const SandboxLimits& limits) {
  ReclaimPlan plan{
      "memory.reclaim", "4194304", "this kernel has no memory.reclaim (Linux 5.19)", {}, {}};
  if (limits.swap_bytes >= limits.memory_bytes) return plan;
  CgroupWrite swap = {CgroupController::kMemory, "memory.swap.max",
                      std::to_string(limits.memory_bytes), WriteNeed::kMust, ""};
  plan.before.push_back(swap);
  swap.value = std::to_string(limits.swap_bytes);
  plan.after.push_back(swap);
  return plan;
}

DeviceLimits V2DeviceLimits(std::span<const DeviceRule> rules) {
  return {{}, MakeDeviceProgram(rules), "a BPF program"};
}

}  // namespace pulga
