#include "api/openfaas/usage_book.h"

#include <algorithm>

namespace pulga {
namespace {

constexpr size_t kMostFunctions = 1024;
constexpr int64_t kLeastSpanMs = 1000;

uint64_t MillisOf(Duration used, int64_t span_ms) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(used).count();
  return static_cast<uint64_t>(std::max<int64_t>(micros, 0) / std::max<int64_t>(span_ms, 1));
}

}  // namespace

UsageBook::Sight UsageBook::Look(const InstanceStatus& instance, const Sight* last) {
  const bool same =
      last != nullptr && last->age_ms <= instance.age_ms && last->used <= *instance.cpu_used;
  if (!same)
    return {instance.age_ms, *instance.cpu_used, MillisOf(*instance.cpu_used, instance.age_ms)};
  const int64_t span = instance.age_ms - last->age_ms;
  if (span < kLeastSpanMs) return *last;
  return {instance.age_ms, *instance.cpu_used, MillisOf(*instance.cpu_used - last->used, span)};
}

std::optional<uint64_t> UsageBook::CpuMillis(const FunctionStatus& function) {
  std::map<uint16_t, Sight> seen;
  const auto before = functions_.find(function.key);
  std::optional<uint64_t> sum;
  for (const InstanceStatus& instance : function.activity.instances) {
    if (!instance.cpu_used) continue;
    const Sight* last = nullptr;
    if (before != functions_.end()) {
      const auto it = before->second.find(instance.slot);
      if (it != before->second.end()) last = &it->second;
    }
    const Sight sight = Look(instance, last);
    sum = sum.value_or(0) + sight.millis;
    seen[instance.slot] = sight;
  }
  if (functions_.size() >= kMostFunctions && before == functions_.end()) functions_.clear();
  if (seen.empty()) {
    functions_.erase(function.key);
  } else {
    functions_[function.key] = std::move(seen);
  }
  return sum;
}

}  // namespace pulga
