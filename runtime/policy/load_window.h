// LoadWindow: how many calls were under way at once, averaged over the last seconds; by the second,
// over the last minute. Levels are weighted by how long they lasted. A fixed 500 bytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace pulga {

class LoadWindow {
 public:
  static constexpr int64_t kSeconds = 60;

  explicit LoadWindow(TimePoint now) : begun_(now), at_(now) {}

  // From now on `level` calls are under way. Time never goes back: an earlier `now` counts as the
  // last one.
  void Set(TimePoint now, uint32_t level);
  // Something that takes no time by itself: with nothing else in the window its average is how many
  // of them there were per second (CallRate).
  void Count(TimePoint now);
  // Over the last `window`, up to a minute; over all there was where that is less.
  double Average(TimePoint now, Duration window);
  uint32_t level() const { return level_; }
  // Gives back the memory of what is older than a minute.
  void Rest(TimePoint now);

 private:
  void Advance(TimePoint now);
  void Forget(int64_t second);

  struct Bucket {
    uint32_t second = 0;
    float sum = 0;  // calls times how long they lasted
  };
  Bucket& BucketOf(int64_t second);  // empty, if it is a new one

  std::vector<Bucket> buckets_;  // of seconds in which there was something, the newest last
  TimePoint begun_;
  TimePoint at_;
  uint32_t level_ = 0;
};

// How many calls began per second. What was before the first one counts as a time without calls:
// one call is not many per second because it is the first.
class CallRate {
 public:
  explicit CallRate(TimePoint now) : window_(Before(now)) {}
  void OnCall(TimePoint now) { window_.Count(now); }
  double PerSecond(TimePoint now, Duration window) { return window_.Average(now, window); }

 private:
  static TimePoint Before(TimePoint now) {
    return std::max(now - std::chrono::seconds(LoadWindow::kSeconds), TimePoint());
  }
  LoadWindow window_;
};

}  // namespace pulga
