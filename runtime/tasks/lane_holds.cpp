#include "runtime/tasks/lane_holds.h"

#include <algorithm>

#include "runtime/tasks/task_rules.h"

namespace pulga {

void LaneHolds::NoteRefused(const FunctionKey& function, uint64_t version, TimePoint now,
                            Duration at_least) {
  std::erase_if(holds_, [&](const auto& hold) { return hold.second.until + kLongestHold < now; });
  Hold& hold = holds_[function];
  if (hold.version != version) hold = {version, 0, {}};
  // Those that were asked together are refused together.
  if (hold.refused == 0 || now >= hold.until) ++hold.refused;
  const Duration wait = HoldAfter(hold.refused, at_least);
  hold.until = std::max(hold.until, now + wait);
}

bool LaneHolds::MayBegin(const TaskQueue::Lane& lane, uint64_t version, TimePoint now) const {
  const auto it = holds_.find(lane.function);
  if (it == holds_.end() || it->second.version != version) return true;
  return now >= it->second.until && lane.counts.running == 0;
}

std::optional<TimePoint> LaneHolds::NextDue(TimePoint now) const {
  std::optional<TimePoint> next;
  for (const auto& [function, hold] : holds_) {
    if (hold.until > now && (!next || hold.until < *next)) next = hold.until;
  }
  return next;
}

}  // namespace pulga
