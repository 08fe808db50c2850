// What differs between cgroup v1 and v2, as data: names of files and what to write into them.
// cgroup_v1.cpp and cgroup_v2.cpp are the only places that know; cgroup.cpp only carries it out.
// Pure, no syscalls. Every number is read back by tests/kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "sandbox/cgroup_layout.h"
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

struct CgroupWrite {
  CgroupController controller = CgroupController::kMemory;
  std::string file;  // empty: cannot be asked for at all, `lacking` says why
  std::string value;
  WriteNeed need = WriteNeed::kMust;
  std::string lacking;  // empty: not worth a warning
};

// How to read one number out of one file.
enum class CounterFormat : uint8_t { kNumber, kKeyOomKill, kKeyUsageUsec };
struct CounterFile {
  CgroupController controller = CgroupController::kMemory;
  std::string file;  // empty: this version has none
  CounterFormat format = CounterFormat::kNumber;
};

struct CgroupDialect {
  CgroupVersion version = CgroupVersion::kV1;
  std::string attach_file;  // a thread moves itself by writing 0
  std::string kill_file;    // empty: kill process by process
  std::string freeze_file;
  std::string freeze_value;
  std::string thaw_value;
  CounterFile oom_kills;
  CounterFile memory_peak;
  CounterFile memory_current;
  CounterFile cpu_usage;
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

inline constexpr uint32_t kDefaultCpuWeight = 100;

struct CpuQuota {
  uint64_t quota_us = 0;
  uint64_t period_us = 0;
};
CpuQuota QuotaOf(uint32_t cpu_millis);

// Nanoseconds for CPU time. Nothing when the text is not what `format` says.
std::optional<uint64_t> ParseCounter(CounterFormat format, std::string_view text);

}  // namespace pulga
