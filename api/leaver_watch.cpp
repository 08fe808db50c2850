#include "api/leaver_watch.h"

#include "base/log.h"

namespace pulga {
namespace {
constexpr auto kDelay = std::chrono::milliseconds(10);
}

LeaverWatch::Entry LeaverWatch::Begin(int fd, std::function<void()> on_leave) {
  if (timer_ == 0) timer_ = loop_.CallAfter(kDelay, [this] { WatchOldOnes(); });
  return fresh_.insert(fresh_.end(), Wait{fd, loop_.Now(), std::move(on_leave)});
}

void LeaverWatch::End(Entry entry) {
  if (entry->watched) loop_.Unwatch(entry->fd);
  (entry->watched ? watched_ : fresh_).erase(entry);
}

void LeaverWatch::WatchOldOnes() {
  timer_ = 0;
  while (!fresh_.empty() && loop_.Now() - fresh_.front().since >= kDelay) {
    watched_.splice(watched_.end(), fresh_, fresh_.begin());
    Wait& wait = watched_.back();
    wait.watched = true;
    const auto on_leave = wait.on_leave;
    const Status status = loop_.Watch(wait.fd, EPOLLRDHUP, [on_leave](uint32_t) { on_leave(); });
    if (!status.ok()) LogWarning("watch a waiting client: " + status.error().message);
  }
  if (fresh_.empty()) return;
  timer_ = loop_.CallAt(fresh_.front().since + kDelay, [this] { WatchOldOnes(); });
}

}  // namespace pulga
