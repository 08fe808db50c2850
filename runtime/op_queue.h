// OpQueue: asynchronous operations that must not overlap, one after the other in order of adding.
// Loop thread. An operation ends by calling what it was given, once, now or later.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <utility>

#include "base/event_loop.h"

namespace pulga {

class OpQueue {
 public:
  using Done = std::function<void()>;
  using Op = std::function<void(Done)>;

  explicit OpQueue(EventLoop& loop) : loop_(loop) {}

  void Add(Op op) {
    waiting_.push_back(std::move(op));
    if (!running_) StartNext();
  }
  // Running and waiting ones.
  size_t size() const { return waiting_.size() + (running_ ? 1 : 0); }

 private:
  void StartNext() {
    running_ = !waiting_.empty();
    if (!running_) return;
    Op op = std::move(waiting_.front());
    waiting_.pop_front();
    // Posted, so that a chain of operations that end at once does not recurse.
    std::weak_ptr<OpQueue*> self = self_;
    op([loop = &loop_, self] {
      loop->Post([self] {
        if (const auto queue = self.lock()) (*queue)->StartNext();
      });
    });
  }

  EventLoop& loop_;
  std::list<Op> waiting_;  // empty in most, and then without a block of its own
  bool running_ = false;
  std::shared_ptr<OpQueue*> self_ = std::make_shared<OpQueue*>(this);
};

}  // namespace pulga
