// LoopTime: where event loops have their time from, and how they wait. The kernel's, unless a
// simulation puts its own in their place: there a wait takes no time, the clock goes on instead.
// For tests, like the faults of base/sys.h; set before the first loop is made, by its thread.
#pragma once

#include <sys/epoll.h>

#include "base/clock.h"

namespace pulga {

class LoopTime {
 public:
  virtual ~LoopTime() = default;
  virtual TimePoint Now() const = 0;
  // As epoll_pwait2: how many of at most `size` events there are within `wait`.
  virtual int Wait(int epoll, epoll_event* events, int size, Duration wait) = 0;
};

void ReplaceLoopTime(LoopTime* time);  // nullptr: the kernel's again

}  // namespace pulga
