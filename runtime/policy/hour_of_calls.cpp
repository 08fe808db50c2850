#include "runtime/policy/hour_of_calls.h"

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace pulga {
namespace {

Error BadText(std::string_view text) {
  return {Code::kInvalidArgument, 0, "not an hour of calls: \"" + Printable(text, 40) + "\""};
}

}  // namespace

void HourOfCalls::Add(uint32_t minute, uint32_t calls) {
  calls_[minute] = static_cast<uint16_t>(calls_[minute] + std::min(calls, kMost - calls_[minute]));
}

std::string HourOfCalls::Serialise() const {
  std::string text;
  for (uint32_t first = 0; first < kMinutes;) {
    uint32_t last = first;
    while (last + 1 < kMinutes && calls_[last + 1] == calls_[first]) ++last;
    if (calls_[first] != 0) {
      if (!text.empty()) text += ' ';
      text += std::to_string(first);
      if (last != first) text += "-" + std::to_string(last);
      text += "*" + std::to_string(calls_[first]);
    }
    first = last + 1;
  }
  return text;
}

Result<HourOfCalls> HourOfCalls::Parse(std::string_view text) {
  HourOfCalls out;
  if (text.empty()) return out;
  uint64_t next = 0;  // runs come in order
  for (const std::string_view run : Split(text, ' ')) {
    const std::vector<std::string_view> parts = Split(run, '*');
    if (parts.size() != 2) return BadText(text);
    const std::vector<std::string_view> ends = Split(parts[0], '-');
    const auto first = ParseUint(ends.front(), kMinutes - 1);
    const auto last = ParseUint(ends.back(), kMinutes - 1);
    const auto calls = ParseUint(parts[1], kMost);
    if (ends.size() > 2 || !first || !last || !calls) return BadText(text);
    if (*first < next || *last < *first || *calls == 0) return BadText(text);
    for (uint64_t minute = *first; minute <= *last; ++minute) {
      out.calls_[minute] = static_cast<uint16_t>(*calls);
    }
    next = *last + 1;
  }
  return out;
}

}  // namespace pulga
