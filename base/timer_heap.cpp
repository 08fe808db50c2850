#include "base/timer_heap.h"

#include <utility>

namespace pulga {

TimerHeap::Id TimerHeap::Add(TimePoint when, Callback callback) {
  uint32_t index = free_;
  if (index == 0) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    free_ = slots_[index].next_free;
  }
  Slot& slot = slots_[index];
  slot.callback = std::move(callback);
  heap_.push_back({when, next_sequence_++, index});
  slot.position = static_cast<uint32_t>(heap_.size() - 1);
  SiftUp(heap_.size() - 1);
  return Id{slots_[index].generation} << 32 | index;
}

void TimerHeap::Cancel(Id id) {
  const auto index = static_cast<uint32_t>(id);
  if (index == 0 || index >= slots_.size() || slots_[index].generation != id >> 32) return;
  const Callback dying = std::move(slots_[index].callback);  // its captures may come back to us
  RemoveAt(slots_[index].position);
}

TimerHeap::Callback TimerHeap::TakeFirst() {
  Callback callback = std::move(slots_[heap_.front().slot].callback);
  RemoveAt(0);
  return callback;
}

void TimerHeap::Place(size_t position, const Entry& entry) {
  heap_[position] = entry;
  slots_[entry.slot].position = static_cast<uint32_t>(position);
}

void TimerHeap::SiftUp(size_t position) {
  const Entry entry = heap_[position];
  while (position > 0 && entry < heap_[(position - 1) / 2]) {
    Place(position, heap_[(position - 1) / 2]);
    position = (position - 1) / 2;
  }
  Place(position, entry);
}

void TimerHeap::SiftDown(size_t position) {
  const Entry entry = heap_[position];
  while (true) {
    size_t child = 2 * position + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1] < heap_[child]) ++child;
    if (!(heap_[child] < entry)) break;
    Place(position, heap_[child]);
    position = child;
  }
  Place(position, entry);
}

void TimerHeap::RemoveAt(size_t position) {
  const uint32_t index = heap_[position].slot;
  Slot& slot = slots_[index];
  slot.callback = nullptr;
  ++slot.generation;
  slot.next_free = std::exchange(free_, index);
  const Entry last = heap_.back();
  heap_.pop_back();
  if (position == heap_.size()) return;
  Place(position, last);
  SiftUp(position);
  SiftDown(slots_[last.slot].position);
}

}  // namespace pulga
