#include "runtime/accounts/sign_in_limits.h"

#include <algorithm>

namespace pulga {

Duration SignInLimits::WaitFor(const Key& key, const Patience& patience, TimePoint now) const {
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second.failures < patience.free) return Duration::zero();
  const Entry& entry = found->second;
  if (now - entry.last >= kForgiven) return Duration::zero();
  const uint32_t doublings = std::min(entry.failures - patience.free, 10U);
  const Duration wait = std::min<Duration>(std::chrono::seconds(1U << doublings), patience.longest);
  return std::max(entry.last + wait - now, Duration::zero());
}

Duration SignInLimits::WaitOf(const std::string& user, const std::string& address,
                              TimePoint now) const {
  return std::max(WaitFor({user, address}, {kFreeForUser, kLongestOfUser}, now),
                  WaitFor({"", address}, {kFreeForAddress, kLongestOfAddress}, now));
}

void SignInLimits::NoteFailure(const std::string& user, const std::string& address, TimePoint now) {
  Count({user, address}, now);
  Count({"", address}, now);
}

void SignInLimits::Count(const Key& key, TimePoint now) {
  if (!entries_.contains(key)) MakeRoom(now);
  Entry& entry = entries_[key];
  if (now - entry.last >= kForgiven) entry.failures = 0;
  ++entry.failures;
  entry.last = now;
}

// Those that are forgiven go, and if there are none, the one longest without a failure.
void SignInLimits::MakeRoom(TimePoint now) {
  if (entries_.size() < kMaxEntries) return;
  std::erase_if(entries_, [&](const auto& entry) { return now - entry.second.last >= kForgiven; });
  if (entries_.size() < kMaxEntries) return;
  entries_.erase(
      std::min_element(entries_.begin(), entries_.end(),
                       [](const auto& a, const auto& b) { return a.second.last < b.second.last; }));
}

void SignInLimits::NoteSuccess(const std::string& user, const std::string& address) {
  entries_.erase({user, address});
}

}  // namespace pulga
