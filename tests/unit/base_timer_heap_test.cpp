#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/timer_heap.h"

namespace pulga {
namespace {

TimePoint At(int ms) { return TimePoint(std::chrono::milliseconds(ms)); }

TEST(TimerHeap, GivesTimersByTimeThenByOrderOfAdding) {
  TimerHeap heap;
  std::string order;
  heap.Add(At(2), [&] { order += 'c'; });
  heap.Add(At(1), [&] { order += 'a'; });
  heap.Add(At(2), [&] { order += 'd'; });
  heap.Add(At(1), [&] { order += 'b'; });
  while (!heap.empty()) heap.TakeFirst()();
  EXPECT_EQ(order, "abcd");
}

TEST(TimerHeap, AnOldIdDoesNotCancelTheTimerThatTookItsPlace) {
  TimerHeap heap;
  const TimerHeap::Id old = heap.Add(At(1), [] {});
  heap.Cancel(old);
  heap.Add(At(1), [] {});
  heap.Cancel(old);
  heap.Cancel(0);
  heap.Cancel(UINT64_MAX);
  EXPECT_FALSE(heap.empty());
}

TEST(TimerHeap, AgreesWithAnOrderedMapUnderRandomUse) {
  TimerHeap heap;
  std::map<std::pair<TimePoint, uint64_t>, TimerHeap::Id> model;
  std::mt19937 random(7);
  for (int step = 0; step < 20000; ++step) {
    if (model.empty() || random() % 3 != 0) {
      const TimePoint when = At(static_cast<int>(random() % 50));
      const uint64_t sequence = heap.sequence();
      model[{when, sequence}] = heap.Add(when, [] {});
    } else if (random() % 2 == 0) {
      const auto it = std::next(model.begin(), static_cast<long>(random() % model.size()));
      heap.Cancel(it->second);
      model.erase(it);
    } else {
      ASSERT_EQ(heap.next(), model.begin()->first.first);
      ASSERT_EQ(heap.next_sequence_number(), model.begin()->first.second);
      heap.TakeFirst();
      model.erase(model.begin());
    }
    ASSERT_EQ(heap.empty(), model.empty());
  }
}

}  // namespace
}  // namespace pulga
