#include "api/leaver_watch.h"

#include <utility>

#include "base/log.h"

namespace pulga {
namespace {
constexpr Duration kLongAfter = std::chrono::milliseconds(10);
// A busy daemon has more calls at once than it answers in kLongAfter: they are not watched yet.
constexpr Duration kWatchedAfter = std::chrono::milliseconds(50);
constexpr size_t kMostSpare = 64;
}  // namespace

LeaverWatch::Entry LeaverWatch::Begin(int fd, Waiter& waiter) {
  if (long_timer_ == 0) long_timer_ = loop_.CallAfter(kLongAfter, [this] { TellLongOnes(); });
  if (spare_.empty()) spare_.emplace_back();
  ListOf(Stage::kFresh).splice(ListOf(Stage::kFresh).end(), spare_, spare_.begin());
  ListOf(Stage::kFresh).back() = Wait{fd, loop_.Now(), &waiter, Stage::kFresh};
  return std::prev(ListOf(Stage::kFresh).end());
}

void LeaverWatch::End(Entry entry) {
  if (entry->stage == Stage::kWatched) loop_.Unwatch(entry->fd);
  spare_.splice(spare_.end(), ListOf(entry->stage), entry);
  if (spare_.size() > kMostSpare) spare_.pop_back();
  // An idle daemon is not woken for a call that is over.
  if (ListOf(Stage::kFresh).empty()) loop_.Cancel(std::exchange(long_timer_, 0));
  if (ListOf(Stage::kLong).empty()) loop_.Cancel(std::exchange(watch_timer_, 0));
}

void LeaverWatch::TellLongOnes() {
  long_timer_ = 0;
  std::list<Wait>& fresh = ListOf(Stage::kFresh);
  std::list<Wait>& longer = ListOf(Stage::kLong);
  while (!fresh.empty() && loop_.Now() - fresh.front().since >= kLongAfter) {
    longer.splice(longer.end(), fresh, fresh.begin());
    longer.back().stage = Stage::kLong;
    longer.back().waiter->OnLongWait();
  }
  if (!fresh.empty())
    long_timer_ = loop_.CallAt(fresh.front().since + kLongAfter, [this] { TellLongOnes(); });
  if (watch_timer_ == 0) WatchOldOnes();
}

void LeaverWatch::WatchOldOnes() {
  watch_timer_ = 0;
  const std::list<Wait>& longer = ListOf(Stage::kLong);
  while (!longer.empty() && loop_.Now() - longer.front().since >= kWatchedAfter) {
    Watch(ListOf(Stage::kLong).begin());
  }
  if (longer.empty()) return;
  watch_timer_ = loop_.CallAt(longer.front().since + kWatchedAfter, [this] { WatchOldOnes(); });
}

void LeaverWatch::Watch(Entry entry) {
  ListOf(Stage::kWatched).splice(ListOf(Stage::kWatched).end(), ListOf(Stage::kLong), entry);
  entry->stage = Stage::kWatched;
  const Status status =
      loop_.Watch(entry->fd, EPOLLRDHUP, [waiter = entry->waiter](uint32_t) { waiter->OnLeave(); });
  if (!status.ok()) LogWarning("watch a waiting client: " + status.error().message);
}

}  // namespace pulga
