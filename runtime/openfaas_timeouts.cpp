#include "runtime/openfaas_timeouts.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

constexpr Duration kLongest = std::chrono::hours(24);
// For its answer to come out.
constexpr Duration kAfterwards = std::chrono::seconds(2);

std::optional<Duration> ReadTime(std::string_view text) {
  constexpr uint64_t kMostSeconds = 24 * 3600;
  if (const auto seconds = ParseUint(text)) {
    return std::chrono::seconds(std::min(*seconds, kMostSeconds));
  }
  const auto parsed = ParseDuration(text);
  if (!parsed.ok()) return std::nullopt;
  return std::min<Duration>(*parsed, kLongest);
}

}  // namespace

Duration WatchdogTimeout(const std::vector<std::string>& env, Duration least) {
  Duration longest = least;
  for (const std::string_view entry : env) {
    const std::string_view name = entry.substr(0, entry.find('='));
    if (name != "exec_timeout" && name != "read_timeout" && name != "write_timeout") continue;
    const auto time = ReadTime(entry.substr(std::min(name.size() + 1, entry.size())));
    if (!time) continue;
    if (*time != Duration::zero()) {
      longest = std::max(longest, *time + kAfterwards);
    } else if (name == "exec_timeout") {
      longest = kLongest;
    }
  }
  return std::min(longest, kLongest);
}

}  // namespace pulga
