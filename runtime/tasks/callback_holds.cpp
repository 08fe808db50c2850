#include "runtime/tasks/callback_holds.h"

#include <algorithm>

#include "runtime/tasks/task_rules.h"

namespace pulga {
namespace {

constexpr size_t kMostReceivers = 256;

}  // namespace

void CallbackHolds::NoteFailed(const std::string& receiver, TimePoint now, Duration at_least) {
  if (holds_.size() >= kMostReceivers && holds_.count(receiver) == 0) {
    std::erase_if(holds_, [now](const auto& hold) { return hold.second.until <= now; });
    if (holds_.size() >= kMostReceivers) return;
  }
  Hold& hold = holds_[receiver];
  // What was under way when it was noted says nothing new.
  if (hold.failed > 0 && hold.until > now) return;
  hold.until = now + HoldAfter(++hold.failed, at_least);
}

bool CallbackHolds::MaySend(const std::string& receiver, size_t sending, size_t most,
                            TimePoint now) const {
  const auto hold = holds_.find(receiver);
  if (hold == holds_.end()) return sending < most;
  return sending == 0 && hold->second.until <= now;
}

std::optional<TimePoint> CallbackHolds::NextDue(TimePoint now) const {
  std::optional<TimePoint> first;
  for (const auto& [receiver, hold] : holds_) {
    if (hold.until > now) first = std::min(first.value_or(hold.until), hold.until);
  }
  return first;
}

}  // namespace pulga
