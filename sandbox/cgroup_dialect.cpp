#include "sandbox/cgroup_dialect.h"

#include "base/text.h"

namespace pulga {
namespace {

// "key 12" lines.
std::optional<uint64_t> FindKey(std::string_view text, std::string_view key) {
  for (const std::string_view line : Split(text, '\n')) {
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      return ParseUint(line.substr(key.size() + 1));
    }
  }
  return std::nullopt;
}

}  // namespace

const CgroupDialect& DialectOf(CgroupVersion version) {
  return version == CgroupVersion::kV1 ? CgroupV1() : CgroupV2();
}

std::vector<CgroupWrite> LimitWrites(CgroupVersion version, const SandboxLimits& limits,
                                     DeviceNumber disk) {
  return version == CgroupVersion::kV1 ? V1LimitWrites(limits, disk) : V2LimitWrites(limits, disk);
}

DeviceLimits DeviceLimitsFor(CgroupVersion version, std::span<const DeviceRule> rules) {
  return version == CgroupVersion::kV1 ? V1DeviceLimits(rules) : V2DeviceLimits(rules);
}

// Limits are made from the inner to the outer one, as memory before memory and swap: so they go
// down, and up the other way round.
std::vector<CgroupWrite> ResizeWrites(CgroupVersion version, const SandboxLimits& from,
                                      const SandboxLimits& to) {
  const std::vector<CgroupWrite> before = LimitWrites(version, from, {});
  std::vector<CgroupWrite> changed;
  for (CgroupWrite& write : LimitWrites(version, to, {})) {
    const auto same = [&write](const CgroupWrite& other) {
      return other.file == write.file && other.value == write.value;
    };
    if (std::none_of(before.begin(), before.end(), same)) changed.push_back(std::move(write));
  }
  if (to.memory_bytes > from.memory_bytes) std::reverse(changed.begin(), changed.end());
  return changed;
}

ReclaimPlan ReclaimPlanFor(CgroupVersion version, const SandboxLimits& limits) {
  return version == CgroupVersion::kV1 ? V1ReclaimPlan(limits) : V2ReclaimPlan(limits);
}

InstanceMemory ParseMemoryStat(const MemoryKeys& keys, std::string_view text, uint64_t total) {
  const auto less = [](uint64_t from, uint64_t what) { return from > what ? from - what : 0; };
  const uint64_t tmpfs = FindKey(text, keys.tmpfs).value_or(0);
  InstanceMemory memory;
  memory.total = total;
  memory.anon = FindKey(text, keys.anon).value_or(0) + tmpfs;
  memory.file = less(FindKey(text, keys.file).value_or(0), tmpfs);
  memory.kernel = FindKey(text, keys.kernel).value_or(less(total, memory.anon + memory.file));
  memory.swapped = FindKey(text, keys.swap).value_or(0);
  return memory;
}

CpuQuota QuotaOf(uint32_t cpu_millis) {
  // The kernel refuses quotas below 1 ms: very small shares get the longest period instead.
  constexpr uint64_t kPeriodUs = 100'000;
  constexpr uint64_t kLongPeriodUs = 1'000'000;
  constexpr uint64_t kMinQuotaUs = 1'000;
  const uint64_t period = kPeriodUs * cpu_millis / 1000 >= kMinQuotaUs ? kPeriodUs : kLongPeriodUs;
  return {period * cpu_millis / 1000, period};
}

std::optional<uint64_t> ParseCounter(CounterFormat format, std::string_view text) {
  switch (format) {
    case CounterFormat::kNumber:
      return ParseUint(text.substr(0, text.find('\n')));
    case CounterFormat::kKeyOomKill:
      return FindKey(text, "oom_kill");
    case CounterFormat::kKeyUsageUsec: {
      const auto usec = FindKey(text, "usage_usec");
      if (!usec) return std::nullopt;
      return *usec * 1000;
    }
    case CounterFormat::kKeyThrottled:
      return FindKey(text, "nr_throttled");
  }
  return std::nullopt;
}

}  // namespace pulga
