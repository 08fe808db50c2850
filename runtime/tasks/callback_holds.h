// CallbackHolds: receivers that gave no answer, or that this board could not try, and until when
// their next callback waits. The wait doubles while it goes on, and then one at a time is tried: a
// server that is down takes no other receiver's turn. Pure: time comes in as a value. Loop thread.
// Bounded: of more than some hundred receivers those are forgotten whose wait is over.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/clock.h"

namespace pulga {

class CallbackHolds {
 public:
  // What keeps all POSTs back, whoever receives them.
  static constexpr const char* kAllPosts = "";

  // `at_least`: what was asked for.
  void NoteFailed(const std::string& receiver, TimePoint now, Duration at_least);
  void Clear(const std::string& receiver) { holds_.erase(receiver); }
  // `sending`: to that receiver, now; of `most` where nothing holds it back.
  bool MaySend(const std::string& receiver, size_t sending, size_t most, TimePoint now) const;
  // The first moment after `now` at which one of them may be tried again.
  std::optional<TimePoint> NextDue(TimePoint now) const;
  size_t size() const { return holds_.size(); }

 private:
  struct Hold {
    uint32_t failed = 0;  // in a row
    TimePoint until;
  };
  std::map<std::string, Hold> holds_;
};

}  // namespace pulga
