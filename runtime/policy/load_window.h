// LoadWindow: how many calls were under way at once, averaged over the last seconds; by the second,
// over the last minute. Levels are weighted by how long they lasted. A fixed 500 bytes.
#pragma once

#include <array>
#include <cstdint>

#include "base/clock.h"

namespace pulga {

class LoadWindow {
 public:
  static constexpr int64_t kSeconds = 60;

  explicit LoadWindow(TimePoint now) : begun_(now), at_(now) {}

  // From now on `level` calls are under way. Time never goes back: an earlier `now` counts as the
  // last one.
  void Set(TimePoint now, uint32_t level);
  // Over the last `window`, up to a minute; over all there was where that is less.
  double Average(TimePoint now, Duration window);
  uint32_t level() const { return level_; }

 private:
  void Advance(TimePoint now);

  struct Bucket {
    uint32_t second = 0;
    float sum = 0;  // calls times how long they lasted
  };
  std::array<Bucket, kSeconds> buckets_;  // by second modulo the size
  TimePoint begun_;
  TimePoint at_;
  uint32_t level_ = 0;
};

}  // namespace pulga
