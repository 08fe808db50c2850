#include "base/work_queue.h"

#include <pthread.h>
#include <signal.h>

namespace pulga {

WorkQueue::WorkQueue(std::string name, EventLoop& loop)
    : loop_(loop), name_(std::move(name)), thread_([this] { ThreadMain(); }) {}

WorkQueue::~WorkQueue() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_one();
  thread_.join();
}

void WorkQueue::Run(std::function<void()> job) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  ready_.notify_one();
}

size_t WorkQueue::pending() const {
  std::lock_guard lock(mutex_);
  return jobs_.size();
}

void WorkQueue::ThreadMain() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals belong to the loop's thread
  pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
  std::unique_lock lock(mutex_);
  while (true) {
    ready_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;  // its captures die here, not under the lock
    lock.lock();
  }
}

}  // namespace pulga
