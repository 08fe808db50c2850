// SimTime: the clock of a simulation and of its event loop. Where nothing is ready there is nothing
// to do before the next timer: the clock goes there. One at a time, one thread.
#pragma once

#include <sys/epoll.h>

#include "base/clock.h"
#include "base/loop_time.h"

namespace pulga::testing {

class SimTime final : public Clock, public LoopTime {
 public:
  SimTime() { ReplaceLoopTime(this); }
  ~SimTime() override { ReplaceLoopTime(nullptr); }
  TimePoint Now() const override {
    ++reads_;
    return now_;
  }
  std::chrono::system_clock::time_point WallTime() const override {
    return std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(now_.time_since_epoch()));
  }
  int Wait(int epoll, epoll_event* events, int size, Duration wait) override {
    const int ready = epoll_wait(epoll, events, size, 0);
    if (ready == 0) now_ += wait;
    return ready;
  }
  uint64_t reads() const { return reads_; }  // whoever decides something looks at the clock

 private:
  TimePoint now_{std::chrono::hours(1000)};
  mutable uint64_t reads_ = 0;
};

}  // namespace pulga::testing
