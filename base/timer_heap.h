// TimerHeap: pending calls by time, then by order of adding. A binary heap that knows where each
// timer stands, so that cancelling (what nearly every request's timeout ends in) really removes it.
// Steady state allocates nothing but what a callback's captures need. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"

namespace pulga {

class TimerHeap {
 public:
  using Id = uint64_t;  // never 0; a number is not reused while anybody can remember it
  using Callback = std::function<void()>;

  Id Add(TimePoint when, Callback callback);
  void Cancel(Id id);  // unknown ones are ignored

  bool empty() const { return heap_.empty(); }
  TimePoint next() const { return heap_.front().when; }
  // Timers added from now on have a sequence() of at least this.
  uint64_t sequence() const { return next_sequence_; }
  uint64_t next_sequence_number() const { return heap_.front().sequence; }
  Callback TakeFirst();

 private:
  struct Entry {
    TimePoint when;
    uint64_t sequence;
    uint32_t slot;
    bool operator<(const Entry& other) const {
      return when != other.when ? when < other.when : sequence < other.sequence;
    }
  };
  struct Slot {
    Callback callback;
    uint32_t generation = 1;
    uint32_t position = 0;
    uint32_t next_free = 0;
  };
  void Place(size_t position, const Entry& entry);
  void SiftUp(size_t position);
  void SiftDown(size_t position);
  void RemoveAt(size_t position);

  std::vector<Entry> heap_;
  std::vector<Slot> slots_{1};  // slot 0 ends the free list and makes no id 0
  uint32_t free_ = 0;
  uint64_t next_sequence_ = 1;
};

}  // namespace pulga
