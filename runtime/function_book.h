// FunctionBook: what was learned about one function, over all its versions: how long it is usually
// idle, how many calls it has at once and how often, what its starts cost and its instances hold,
// and what was lately decided for it and why. Bounded, and small while there are no calls. Loop
// thread; its pools share it, and it goes with the function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "runtime/policy/cost_book.h"
#include "runtime/policy/idle_histogram.h"
#include "runtime/policy/keep_alive.h"
#include "runtime/policy/load_window.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct Decision {
  int64_t unix_ms = 0;
  std::string text;
};

struct MinuteOfCalls {
  int64_t minute = 0;  // since 1970
  uint32_t calls = 0;
};

// What is worth keeping of a book over a restart, by the wall's clock.
struct Learned {
  using WallTime = std::chrono::system_clock::time_point;
  IdleHistogram habit;
  CostBook costs;
  double calls_lately = 0;             // at `at`
  std::optional<WallTime> idle_since;  // none: a call was open, or there was none yet
  std::optional<InstanceSize> size;    // where limits are ranges: what instances had
  WallTime at;
  std::vector<MinuteOfCalls> minutes;  // with calls, since the last time it was taken
};

class FunctionBook {
 public:
  // Shorter gaps are a caller's pace, not the function's idleness: nothing is given up meanwhile.
  static constexpr Duration kLeastIdle = std::chrono::seconds(1);
  static constexpr size_t kDecisions = 20;

  explicit FunctionBook(TimePoint now) : load_(now), counted_(now) {}

  // --- calls, O(1)
  void OnCallBegun(TimePoint now);
  void OnCallEnded(TimePoint now);
  uint32_t open_calls() const { return load_.level(); }
  // None while a call is open, and before the first one.
  std::optional<TimePoint> idle_since() const { return idle_since_; }

  // --- what follows
  const IdleHistogram& habit() const { return habit_; }
  // Where scale.idle is auto; `fixed`: what is taken while no habit shows.
  Warmth Habit(Duration fixed);
  LoadWindow& load() { return load_; }
  double Frequency(TimePoint now);  // calls lately: half of them is forgotten each hour
  CostBook& costs() { return costs_; }
  const CostBook& costs() const { return costs_; }

  // The newest last. What is said again and again is kept once.
  void Decided(int64_t unix_ms, std::string text);
  const std::vector<Decision>& decisions() const { return decisions_; }

  // --- over a restart
  bool changed() const { return changed_; }  // by a call or a new size, since the last Take
  Learned Take(const Clock& clock);
  // Of a book that is new. A pause that ends later than it began, or lasts longer than a habit
  // reaches, was the machine's and not the function's.
  void Recall(const Learned& learned, const Clock& clock);

  // Where limits are ranges: what instances have now.
  const std::optional<InstanceSize>& size() const { return size_; }
  void Resized(const InstanceSize& size) {
    size_ = size;
    changed_ = true;
  }

  double room_clock = 0;  // greedy-dual's, when the function was last called
  uint64_t pass = 0;      // after its last start (policy/turns)

 private:
  // Longer than it ever is between two Takes; who is late loses the oldest.
  static constexpr size_t kMinutes = 16;
  struct Minute {
    uint32_t number = 0;  // of the steady clock
    uint32_t calls = 0;
  };

  void Forget(TimePoint now);
  void Count(TimePoint now);

  IdleHistogram habit_;
  LoadWindow load_;
  CostBook costs_;
  std::optional<TimePoint> idle_since_;
  std::optional<Warmth> warmth_;  // none: to be planned anew
  Duration planned_for_{0};
  double recent_ = 0;
  TimePoint counted_;
  std::vector<Decision> decisions_;
  std::vector<Minute> minutes_;  // with calls, the newest last
  std::optional<InstanceSize> size_;
  bool changed_ = false;
};

}  // namespace pulga
