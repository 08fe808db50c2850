#include "base/event_loop.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/loop_time.h"
#include "base/sys.h"

namespace pulga {
namespace {
constexpr int kEventsPerTurn = 64;

LoopTime* replaced_time = nullptr;

TimePoint ReadTime() {
  return replaced_time != nullptr ? replaced_time->Now() : std::chrono::steady_clock::now();
}
}  // namespace

void ReplaceLoopTime(LoopTime* time) { replaced_time = time; }

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  std::unique_ptr<EventLoop> loop(new EventLoop);
  loop->now_ = ReadTime();
  loop->epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_.valid()) return LastError("epoll_create1");
  loop->wake_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->wake_.valid()) return LastError("eventfd");
  EventLoop* self = loop.get();
  PULGA_RETURN_IF_ERROR(loop->Watch(loop->wake_.get(), EPOLLIN, [self](uint32_t) {
    uint64_t count;
    (void)!read(self->wake_.get(), &count, sizeof count);
    self->RunPosted();
  }));
  return loop;
}

EventLoop::~EventLoop() = default;

Status EventLoop::Watch(int fd, uint32_t events, FdCallback callback) {
  epoll_event event = {};
  event.events = events;
  const uint64_t generation = next_generation_++;
  event.data.u64 = (generation << 32) | static_cast<uint32_t>(fd);
  if (PULGA_SYS(epoll_ctl, epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return LastError("epoll_ctl add");
  watchers_[fd] = std::make_shared<Watcher>(Watcher{std::move(callback), generation & 0xffffffff});
  return OkStatus();
}

Status EventLoop::Modify(int fd, uint32_t events) {
  const auto it = watchers_.find(fd);
  PULGA_CHECK(it != watchers_.end());
  epoll_event event = {};
  event.events = events;
  event.data.u64 = (it->second->generation << 32) | static_cast<uint32_t>(fd);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) return LastError("epoll_ctl mod");
  return OkStatus();
}

void EventLoop::Unwatch(int fd) {
  if (watchers_.erase(fd) != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::Post(Callback callback) {
  bool was_empty;
  {
    std::lock_guard lock(posted_mutex_);
    was_empty = posted_.empty();
    posted_.push_back(std::move(callback));
  }
  const uint64_t one = 1;
  if (was_empty) (void)!write(wake_.get(), &one, sizeof one);
}

void EventLoop::AddPrepare(std::function<Duration()> prepare) {
  prepares_.push_back(std::move(prepare));
}

Status EventLoop::OnSignals(const std::vector<int>& signals, std::function<void(int)> callback) {
  sigset_t set;
  sigemptyset(&set);
  for (int signo : signals) sigaddset(&set, signo);
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return LastError("pthread_sigmask");
  PULGA_CHECK(!signal_fd_.valid());
  signal_fd_.Reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signal_fd_.valid()) return LastError("signalfd");
  return Watch(signal_fd_.get(), EPOLLIN, [this, callback = std::move(callback)](uint32_t) {
    signalfd_siginfo info;
    while (read(signal_fd_.get(), &info, sizeof info) == sizeof info) {
      callback(static_cast<int>(info.ssi_signo));
    }
  });
}

void EventLoop::RunPosted() {
  std::vector<Callback> batch;
  {
    std::lock_guard lock(posted_mutex_);
    batch.swap(posted_);
  }
  for (Callback& call : batch) call();
}

void EventLoop::RunTimers() {
  const uint64_t horizon =
      timers_.sequence();  // one that arms itself again waits for the next turn
  while (!timers_.empty() && timers_.next() <= now_ && timers_.next_sequence_number() < horizon) {
    timers_.TakeFirst()();
  }
}

Duration EventLoop::WaitTime(Duration max_wait) const {
  if (!timers_.empty()) max_wait = std::min(max_wait, Duration(timers_.next() - now_));
  return std::clamp<Duration>(max_wait, Duration::zero(), std::chrono::hours(1));
}

// Timers shorter than a millisecond exist (readiness of a starting server), so nanoseconds where
// the kernel has them.
int EventLoop::Wait(epoll_event* events, Duration wait) {
  if (replaced_time != nullptr) {
    return replaced_time->Wait(epoll_.get(), events, kEventsPerTurn, wait);
  }
  if (!coarse_wait_) {
    timespec limit = {};
    limit.tv_sec = wait.count() / 1'000'000'000;
    limit.tv_nsec = wait.count() % 1'000'000'000;
    const long n =
        syscall(SYS_epoll_pwait2, epoll_.get(), events, kEventsPerTurn, &limit, nullptr, 0);
    if (n >= 0 || errno == EINTR) return static_cast<int>(n);
    coarse_wait_ = true;  // before Linux 5.11
  }
  const auto up = std::chrono::ceil<std::chrono::milliseconds>(wait);
  return epoll_wait(epoll_.get(), events, kEventsPerTurn, static_cast<int>(up.count()));
}

void EventLoop::RunOnce(Duration max_wait) {
  for (auto& prepare : prepares_) max_wait = std::min(max_wait, prepare());
  now_ = ReadTime();
  epoll_event events[kEventsPerTurn];
  const int n = Wait(events, WaitTime(max_wait));
  now_ = ReadTime();
  for (int i = 0; i < n; ++i) {
    const auto it = watchers_.find(static_cast<int>(events[i].data.u64 & 0xffffffff));
    // A callback earlier in this batch may have unwatched it, or closed and reused the number.
    if (it == watchers_.end() || it->second->generation != events[i].data.u64 >> 32) continue;
    const std::shared_ptr<Watcher> keep = it->second;
    keep->callback(events[i].events);
  }
  RunTimers();
}

void EventLoop::Run() {
  running_ = true;
  while (running_) RunOnce(Duration::max());
}

void EventLoop::Stop() { running_ = false; }

}  // namespace pulga
