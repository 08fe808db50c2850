// HabitKeeper: what is learned about functions, kept over a restart. Every five minutes, and at the
// end, what changed is written in one transaction; without a call nothing is. A power cut costs
// the minutes since. Loop thread; the rows are written by the storage thread.
// On failure: a log line when it begins to fail; the next time more is written.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "base/work_queue.h"
#include "runtime/call_history.h"
#include "runtime/dispatcher.h"
#include "runtime/state_store.h"

namespace pulga {

inline constexpr Duration kHabitInterval = std::chrono::minutes(5);

struct HabitParts {
  EventLoop& loop;
  WorkQueue& storage;
  StateStore& store;  // used on `storage` only
  Dispatcher& dispatcher;
  std::string data_dir;  // for unnamed files
};

class HabitKeeper {
 public:
  explicit HabitKeeper(HabitParts parts, Duration interval = kHabitInterval);
  ~HabitKeeper();

  // Start-up, before the functions are restored.
  void Load(std::vector<StoredHabit> habits);
  // Now: what the storage thread is given afterwards finds it written.
  void Save();
  // Up to now, of the functions in `facts`: a CSV that policy/trace.h reads.
  void History(FactsByKey facts, std::function<void(Result<UniqueFd>)> done);

 private:
  void SaveLater();

  HabitParts parts_;
  const Duration interval_;
  EventLoop::TimerId timer_ = 0;
  bool fails_ = false;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace pulga
