// What differs between cgroup v1 and v2, as data: names of files and what to write into them.
// cgroup_v1.cpp and cgroup_v2.cpp are the only places that know; cgroup.cpp only carries it out.
// Pure, no syscalls. Every number is read back by tests/kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/device_program.h"
#include "sandbox/sandbox.h"

namespace pulga {

// A block device in the kernel's own notation, for io limits. 0:0 = none that can be limited.
struct DeviceNumber {
  uint32_t major = 0;
  uint32_t minor = 0;
};

enum class WriteNeed : uint8_t {
  kMust,     // failing to write it fails the creation
  kMayLack,  // file or controller may be missing on this kernel: `lacking` is the warning then
};

// Rows of the isolation report that are not simply "cgroup.CONTROLLER".
inline constexpr const char* kSwapLayer = "cgroup.swap";
inline constexpr const char* kOomGroupLayer = "cgroup.oom_group";
inline constexpr const char* kCpuWeightLayer = "cgroup.cpu_weight";

struct CgroupWrite {
  CgroupController controller = CgroupController::kMemory;
  std::string file;  // empty: cannot be asked for at all, `lacking` says why
  std::string value;
  WriteNeed need = WriteNeed::kMust;
  std::string lacking;          // empty: not worth a warning
  const char* layer = nullptr;  // of the isolation report; nullptr: that of its controller
};

// How to read one number out of one file.
enum class CounterFormat : uint8_t { kNumber, kKeyOomKill, kKeyUsageUsec, kKeyThrottled };
struct CounterFile {
  CgroupController controller = CgroupController::kMemory;
  std::string file;  // empty: this version has none
  CounterFormat format = CounterFormat::kNumber;
};

// Lines of memory_stat; "": this version has none such.
struct MemoryKeys {
  const char* anon = "";
  const char* file = "";  // tmpfs in it
  const char* tmpfs = "";
  const char* kernel = "";  // "": what is left of the total
  const char* swap = "";
};

struct CgroupDialect {
  CgroupVersion version = CgroupVersion::kV1;
  uint32_t file_system = 0;  // statfs: f_type
  std::string view_fstype;   // what shows an instance its own cgroup
  std::string attach_file;   // a thread moves itself by writing 0
  std::string kill_file;     // empty: kill process by process
  std::string freeze_file;
  std::string freeze_value;
  std::string thaw_value;
  CounterFile oom_kills;
  CounterFile memory_peak;
  CounterFile memory_current;
  CounterFile memory_stat;  // for ParseMemoryStat
  MemoryKeys memory_keys;
  CounterFile memory_swap;  // empty: memory_stat tells
  // Pushes out what is above it and slows down who wants more, and kills nobody; empty: no such.
  std::string memory_brake;
  CounterFile cpu_usage;
  CounterFile cpu_throttled;
  // Of all functions together: half of what anybody else has, the daemon above all.
  CgroupWrite tree_weight;
  // A new cgroup of `inherited_by` gets these from the one above before it can be joined.
  CgroupController inherited_by = CgroupController::kCpuset;
  std::vector<std::string> inherited_files = {};
};

const CgroupDialect& CgroupV1();
const CgroupDialect& CgroupV2();
const CgroupDialect& DialectOf(CgroupVersion version);

// The writes for `limits`, in order, for all controllers this version may carry; the caller leaves
// out those of controllers that live elsewhere.
std::vector<CgroupWrite> V1LimitWrites(const SandboxLimits& limits, DeviceNumber disk);
std::vector<CgroupWrite> V2LimitWrites(const SandboxLimits& limits, DeviceNumber disk);
std::vector<CgroupWrite> LimitWrites(CgroupVersion version, const SandboxLimits& limits,
                                     DeviceNumber disk);

// Those that differ, in an order that never has one limit above another that contains it.
std::vector<CgroupWrite> ResizeWrites(CgroupVersion version, const SandboxLimits& from,
                                      const SandboxLimits& to);

// How the pages of a frozen slot are pushed out.
struct ReclaimPlan {
  std::string file;                 // of the memory controller
  std::string value;                // written again and again while that brings anything
  std::string lacking;              // what it means that there is no such file
  std::vector<CgroupWrite> before;  // so that a slot without swap has some for the while
  std::vector<CgroupWrite> after;   // as it was
};
ReclaimPlan V1ReclaimPlan(const SandboxLimits& limits);
ReclaimPlan V2ReclaimPlan(const SandboxLimits& limits);
ReclaimPlan ReclaimPlanFor(CgroupVersion version, const SandboxLimits& limits);

// `total` in parts, by the text of memory_stat. What it does not tell: kernel, the rest of the
// total (v1, and v2 before Linux 5.18); swapped, 0.
InstanceMemory ParseMemoryStat(const MemoryKeys& keys, std::string_view text, uint64_t total);

// How a cgroup is told which devices may be opened in it: writes (v1) or a program (v2).
struct DeviceLimits {
  std::vector<CgroupWrite> writes;
  std::vector<bpf_insn> program;
  std::string how;  // for the isolation report
};
DeviceLimits V1DeviceLimits(std::span<const DeviceRule> rules);
DeviceLimits V2DeviceLimits(std::span<const DeviceRule> rules);
DeviceLimits DeviceLimitsFor(CgroupVersion version, std::span<const DeviceRule> rules);

inline constexpr uint32_t kDefaultCpuWeight = 100;

struct CpuQuota {
  uint64_t quota_us = 0;
  uint64_t period_us = 0;
};
CpuQuota QuotaOf(uint32_t cpu_millis);

// Nanoseconds for CPU time. Nothing when the text is not what `format` says.
std::optional<uint64_t> ParseCounter(CounterFormat format, std::string_view text);

}  // namespace pulga
