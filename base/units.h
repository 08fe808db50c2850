// Quantities as people write them in function specs: Kubernetes bytes and cpu, durations.
// Parsers refuse signs, spaces, overflow and anything left over, and say which text was wrong.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace pulga {

// "0", "512", "20M", "40Mi", "1Gi", "100k", "1.5Gi". Whole bytes only.
Result<uint64_t> ParseBytes(std::string_view text);
std::string FormatBytes(uint64_t bytes);  // "64Mi" when exact, for specs
std::string HumanBytes(uint64_t bytes);   // "12.3 MiB", for people
// "500m" or "0.5" or "2": thousandths of one core. 0 means unlimited.
Result<uint32_t> ParseCpuMillis(std::string_view text);
std::string FormatCpuMillis(uint32_t millis);  // "500m", "2"
// "30s", "1.5s", "250ms", "2m", "1h", "1m30s"; a bare "0" is zero.
Result<Duration> ParseDuration(std::string_view text);
std::string FormatDuration(Duration duration);  // "30s", "1m30s", "250ms"

}  // namespace pulga
