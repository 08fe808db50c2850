#include "runtime/policy/load_window.h"

#include <algorithm>

namespace pulga {
namespace {

using std::chrono::seconds;

int64_t SecondOf(TimePoint when) {
  return std::chrono::floor<seconds>(when.time_since_epoch()).count();
}

double Length(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

void LoadWindow::Set(TimePoint now, uint32_t level) {
  Advance(now);
  level_ = level;
}

void LoadWindow::Count(TimePoint now) {
  Advance(now);
  Bucket& bucket = BucketOf(SecondOf(at_));
  bucket.sum += 1;
}

LoadWindow::Bucket& LoadWindow::BucketOf(int64_t second) {
  if (!buckets_.empty() && buckets_.back().second == second) return buckets_.back();
  Forget(second);
  return buckets_.emplace_back(Bucket{static_cast<uint32_t>(second), 0});
}

// What a window that ends with this second does not see.
void LoadWindow::Forget(int64_t second) {
  const auto seen = [second](const Bucket& bucket) { return bucket.second + kSeconds > second; };
  const auto first = std::find_if(buckets_.begin(), buckets_.end(), seen);
  if (first == buckets_.end()) {
    buckets_ = {};
  } else {
    buckets_.erase(buckets_.begin(), first);
  }
}

void LoadWindow::Rest(TimePoint now) {
  Advance(now);
  Forget(SecondOf(at_));
}

void LoadWindow::Advance(TimePoint now) {
  if (now <= at_) return;
  if (level_ == 0) {
    at_ = now;
    return;
  }
  // What is older than the window is not even counted.
  at_ = std::max(at_, TimePoint(seconds(SecondOf(now) - kSeconds + 1)));
  while (at_ < now) {
    const int64_t second = SecondOf(at_);
    const TimePoint end = std::min(now, TimePoint(seconds(second + 1)));
    BucketOf(second).sum += static_cast<float>(level_ * Length(end - at_));
    at_ = end;
  }
}

double LoadWindow::Average(TimePoint now, Duration window) {
  Advance(now);
  // Whole seconds and the one under way: at most a second less than the window.
  const int64_t wanted = std::clamp<int64_t>(window / seconds(1), 1, kSeconds);
  const int64_t last = SecondOf(at_);
  const TimePoint from = std::max(begun_, TimePoint(seconds(last - wanted + 1)));
  if (at_ <= from) return level_;
  double sum = 0;
  const int64_t first = SecondOf(from);
  for (const Bucket& bucket : buckets_) {
    if (bucket.second >= first) sum += bucket.sum;
  }
  return sum / Length(at_ - from);
}

}  // namespace pulga
