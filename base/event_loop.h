// One epoll loop on one thread: fds, timers, posted calls, signals. Everything but Post() must be
// called on the loop's thread. Callbacks may watch, unwatch and cancel anything, themselves too.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/timer_heap.h"
#include "base/unique_fd.h"

namespace pulga {

class EventLoop {
 public:
  using FdCallback = std::function<void(uint32_t events)>;
  using Callback = std::function<void()>;
  using TimerId = TimerHeap::Id;  // never 0

  static Result<std::unique_ptr<EventLoop>> Create();
  ~EventLoop();

  // `events` are EPOLLIN etc., EPOLLET allowed. One watch per fd. The fd stays the caller's and
  // must be unwatched before it is closed.
  Status Watch(int fd, uint32_t events, FdCallback callback);
  Status Modify(int fd, uint32_t events);
  void Unwatch(int fd);

  TimerId CallAt(TimePoint when, Callback callback) {
    return timers_.Add(when, std::move(callback));
  }
  TimerId CallAfter(Duration delay, Callback callback) {
    return CallAt(Now() + delay, std::move(callback));
  }
  void Cancel(TimerId id) { timers_.Cancel(id); }  // 0 and fired timers are ignored

  // From any thread; runs on the loop's thread, in order.
  void Post(Callback callback);
  // Runs before each wait, in order of adding; returns the longest time it may wait (max() = any).
  // This is how libmicrohttpd's external mode nests (contract: call MHD_run until it asks no more).
  void AddPrepare(std::function<Duration()> prepare);
  // Blocks `signals` in this thread and delivers them here.
  Status OnSignals(const std::vector<int>& signals, std::function<void(int signo)> callback);

  // Until Stop(). RunOnce waits at most `max_wait` and serves what is ready; for tests.
  void Run();
  void RunOnce(Duration max_wait);
  void Stop();

  // Read once per turn of the loop: cheap, and at most one turn old.
  TimePoint Now() const { return now_; }

 private:
  struct Watcher {
    FdCallback callback;
    uint64_t generation;
  };
  EventLoop() = default;
  void RunPosted();
  void RunTimers();
  Duration WaitTime(Duration max_wait) const;
  int Wait(epoll_event* events, Duration wait);

  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd signal_fd_;
  bool running_ = false;
  bool coarse_wait_ = false;  // no epoll_pwait2: whole milliseconds
  TimePoint now_ = std::chrono::steady_clock::now();
  uint64_t next_generation_ = 1;
  std::unordered_map<int, std::shared_ptr<Watcher>> watchers_;
  TimerHeap timers_;
  std::vector<std::function<Duration()>> prepares_;
  std::mutex posted_mutex_;  // guards posted_
  std::vector<Callback> posted_;
};

}  // namespace pulga
