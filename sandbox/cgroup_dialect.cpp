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
  }
  return std::nullopt;
}

}  // namespace pulga
