// LeaverWatch: tells long waits from short ones, and notices clients that leave during a long one.
// While a call runs we do not read from its client. Most waits are over in a moment, so a socket is
// only watched once its wait has lasted long: a short call costs two list operations.
// Loop thread.
#pragma once

#include <array>
#include <cstdint>
#include <list>

#include "base/event_loop.h"

namespace pulga {

class LeaverWatch {
 public:
  class Waiter {
   public:
    virtual ~Waiter() = default;
    virtual void OnLongWait() = 0;  // some milliseconds; may not End the entry
    virtual void OnLeave() = 0;     // may End the entry
  };
  enum class Stage : uint8_t { kFresh, kLong, kWatched };
  struct Wait {
    int fd = -1;
    TimePoint since;
    Waiter* waiter = nullptr;
    Stage stage = Stage::kFresh;
  };
  using Entry = std::list<Wait>::iterator;

  explicit LeaverWatch(EventLoop& loop) : loop_(loop) {}
  ~LeaverWatch() {
    loop_.Cancel(long_timer_);
    loop_.Cancel(watch_timer_);
  }
  LeaverWatch(const LeaverWatch&) = delete;
  LeaverWatch& operator=(const LeaverWatch&) = delete;

  Entry Begin(int fd, Waiter& waiter);
  void End(Entry entry);

 private:
  std::list<Wait>& ListOf(Stage stage) { return waits_[static_cast<size_t>(stage)]; }
  void TellLongOnes();
  void WatchOldOnes();
  void Watch(Entry entry);
  EventLoop& loop_;
  std::array<std::list<Wait>, 3> waits_;  // by stage; oldest first
  std::list<Wait> spare_;                 // nodes to use again
  EventLoop::TimerId long_timer_ = 0;
  EventLoop::TimerId watch_timer_ = 0;
};

}  // namespace pulga
