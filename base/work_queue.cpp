#include "base/work_queue.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "base/log.h"
#include "base/sys.h"

namespace pulga {

WorkQueue::WorkQueue(std::string name, EventLoop& loop)
    : WorkQueue(std::move(name), loop, WithoutThread{}) {
  const Status started = StartThread();
  if (started.ok()) return;
  LogError(started.error().message);
  _exit(1);
}

Result<std::unique_ptr<WorkQueue>> WorkQueue::Start(std::string name, EventLoop& loop) {
  std::unique_ptr<WorkQueue> queue(new WorkQueue(std::move(name), loop, WithoutThread{}));
  const Status started = queue->StartThread();
  if (!started.ok()) return started.error();
  return queue;
}

Status WorkQueue::StartThread() {
  try {
    if (sys::Faulted()) throw std::system_error(errno, std::generic_category());
    thread_ = std::thread([this] { ThreadMain(); });
    return OkStatus();
  } catch (const std::system_error& error) {
    return Error{Code::kUnavailable, error.code().value(),
                 "start the thread " + name_ + ": " + error.code().message()};
  }
}

WorkQueue::~WorkQueue() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_one();
  if (thread_.joinable()) thread_.join();
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
