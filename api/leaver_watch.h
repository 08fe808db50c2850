// LeaverWatch: notices clients that leave while we are not reading from them. A suspended
// connection is out of the library's epoll set. Most waits are over in a moment, so a socket is
// only watched once its wait has lasted some milliseconds: a short call costs two list operations.
// Loop thread.
#pragma once

#include <functional>
#include <list>

#include "base/event_loop.h"

namespace pulga {

class LeaverWatch {
 public:
  struct Wait {
    int fd = -1;
    TimePoint since;
    std::function<void()> on_leave;
    bool watched = false;
  };
  using Entry = std::list<Wait>::iterator;

  explicit LeaverWatch(EventLoop& loop) : loop_(loop) {}
  ~LeaverWatch() { loop_.Cancel(timer_); }
  LeaverWatch(const LeaverWatch&) = delete;
  LeaverWatch& operator=(const LeaverWatch&) = delete;

  // `on_leave` may End the entry.
  Entry Begin(int fd, std::function<void()> on_leave);
  void End(Entry entry);

 private:
  void WatchOldOnes();
  EventLoop& loop_;
  std::list<Wait> fresh_;  // oldest first
  std::list<Wait> watched_;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace pulga
