// A thread that runs jobs one at a time, in order, and hands results back to the loop by value.
// The storage thread (SQLite, files) and the spool thread (imports) are each one of these.
// Wait<T>() is for jobs on such a thread that need one answer from the loop.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/event_loop.h"
#include "base/result.h"

namespace pulga {

class WorkQueue {
 public:
  // `name` shows in ps (15 bytes). `loop` must outlive the queue. Ends the process, in words, when
  // there is no thread to be had: whoever watches over it starts it anew.
  WorkQueue(std::string name, EventLoop& loop);
  // The same where a caller can be told: kUnavailable.
  static Result<std::unique_ptr<WorkQueue>> Start(std::string name, EventLoop& loop);
  ~WorkQueue();  // runs what is queued, then joins

  void Run(std::function<void()> job);
  // Runs `job` on the thread and `done(result)` on the loop.
  template <typename Job, typename Done>
  void Run(Job job, Done done) {
    Run([this, job = std::move(job), done = std::move(done)]() mutable {
      auto result = std::make_shared<decltype(job())>(job());
      loop_.Post([result, done = std::move(done)]() mutable { done(std::move(*result)); });
    });
  }
  size_t pending() const;

 private:
  struct WithoutThread {};
  WorkQueue(std::string name, EventLoop& loop, WithoutThread)
      : loop_(loop), name_(std::move(name)) {}
  Status StartThread();
  void ThreadMain();
  EventLoop& loop_;
  std::string name_;
  mutable std::mutex mutex_;  // guards jobs_ and stopping_
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::thread thread_;
};

// One value handed from any thread to one waiting thread.
template <typename T>
class Handoff {
 public:
  void Set(T value) {
    std::lock_guard lock(mutex_);
    value_.emplace(std::move(value));
    ready_.notify_one();
  }
  T Wait() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return value_.has_value(); });
    return std::move(*value_);
  }

 private:
  std::mutex mutex_;  // guards value_
  std::condition_variable ready_;
  std::optional<T> value_;
};

}  // namespace pulga
