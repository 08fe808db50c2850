// SignInLimits: how long somebody who gave wrong passwords must wait. Counted for each user from
// each address, so that guessing from one place locks nobody out elsewhere, and for each address
// over all users. The first few are free; then each failure doubles the wait, up to a bound. An
// hour without one is forgiven. Bounded: kMaxEntries. Pure; times come from the caller.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "base/clock.h"

namespace pulga {

class SignInLimits {
 public:
  static constexpr uint32_t kFreeForUser = 5;
  static constexpr uint32_t kFreeForAddress = 20;
  static constexpr Duration kLongestOfUser = std::chrono::minutes(15);
  // Shorter: behind a proxy many people are one address.
  static constexpr Duration kLongestOfAddress = std::chrono::seconds(30);
  static constexpr Duration kForgiven = std::chrono::hours(1);
  static constexpr size_t kMaxEntries = 2000;

  // Zero: may try now.
  Duration WaitOf(const std::string& user, const std::string& address, TimePoint now) const;
  void NoteFailure(const std::string& user, const std::string& address, TimePoint now);
  // Of the user from this address; what the address did to others stays.
  void NoteSuccess(const std::string& user, const std::string& address);
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    uint32_t failures = 0;
    TimePoint last;
  };
  using Key = std::pair<std::string, std::string>;  // user ("" = all), address
  struct Patience {
    uint32_t free;
    Duration longest;
  };
  Duration WaitFor(const Key& key, const Patience& patience, TimePoint now) const;
  void Count(const Key& key, TimePoint now);
  void MakeRoom(TimePoint now);

  std::map<Key, Entry> entries_;
};

}  // namespace pulga
