#include "api/leaver_watch.h"

#include <utility>

#include "base/log.h"

namespace pulga {
namespace {
constexpr auto kDelay = std::chrono::milliseconds(10);
constexpr size_t kMostSpare = 64;
}  // namespace

LeaverWatch::Entry LeaverWatch::Begin(int fd, Waiter& waiter) {
  if (timer_ == 0) timer_ = loop_.CallAfter(kDelay, [this] { WatchOldOnes(); });
  if (spare_.empty()) spare_.emplace_back();
  fresh_.splice(fresh_.end(), spare_, spare_.begin());
  fresh_.back() = Wait{fd, loop_.Now(), &waiter};
  return std::prev(fresh_.end());
}

void LeaverWatch::End(Entry entry) {
  if (entry->watched) loop_.Unwatch(entry->fd);
  spare_.splice(spare_.end(), entry->watched ? watched_ : fresh_, entry);
  if (spare_.size() > kMostSpare) spare_.pop_back();
  // An idle daemon is not woken for a call that is over.
  if (fresh_.empty()) loop_.Cancel(std::exchange(timer_, 0));
}

void LeaverWatch::WatchOldOnes() {
  timer_ = 0;
  while (!fresh_.empty() && loop_.Now() - fresh_.front().since >= kDelay) {
    watched_.splice(watched_.end(), fresh_, fresh_.begin());
    Wait& wait = watched_.back();
    wait.watched = true;
    wait.waiter->OnLongWait();
    const Status status =
        loop_.Watch(wait.fd, EPOLLRDHUP, [waiter = wait.waiter](uint32_t) { waiter->OnLeave(); });
    if (!status.ok()) LogWarning("watch a waiting client: " + status.error().message);
  }
  if (fresh_.empty()) return;
  timer_ = loop_.CallAt(fresh_.front().since + kDelay, [this] { WatchOldOnes(); });
}

}  // namespace pulga
