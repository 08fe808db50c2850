#include "runtime/habit_keeper.h"

#include <utility>

#include "base/log.h"

namespace pulga {
HabitKeeper::HabitKeeper(HabitParts parts, Duration interval)
    : parts_(std::move(parts)), interval_(interval) {
  SaveLater();
}

HabitKeeper::~HabitKeeper() { parts_.loop.Cancel(timer_); }

void HabitKeeper::Load(std::vector<StoredHabit> habits) {
  for (StoredHabit& habit : habits) parts_.dispatcher.Recall(habit.key, std::move(habit.learned));
}

void HabitKeeper::SaveLater() {
  timer_ = parts_.loop.CallAfter(interval_, [this] {
    Save();
    SaveLater();
  });
}

void HabitKeeper::Save() {
  std::vector<StoredHabit> habits;
  for (auto& [key, learned] : parts_.dispatcher.TakeLearned()) {
    habits.push_back({key, std::move(learned)});
  }
  if (habits.empty()) return;
  auto store = [&store = parts_.store, habits = std::move(habits)] {
    return store.StoreHabits(habits);
  };
  auto tell = [this, alive = std::weak_ptr<char>(alive_)](const Status& stored) {
    if (alive.expired()) return;
    if (!stored.ok() && !fails_) {
      LogWarning("what functions taught can not be written: " + stored.error().message);
    }
    fails_ = !stored.ok();
  };
  parts_.storage.Run(std::move(store), std::move(tell));
}

void HabitKeeper::History(FactsByKey facts, std::function<void(Result<UniqueFd>)> done) {
  Save();
  auto write = [&store = parts_.store, facts = std::move(facts), dir = parts_.data_dir] {
    return std::make_shared<Result<UniqueFd>>(WriteHistory(store, facts, dir));
  };
  parts_.storage.Run(std::move(write),
                     [done = std::move(done)](const std::shared_ptr<Result<UniqueFd>>& file) {
                       done(std::move(*file));
                     });
}

}  // namespace pulga
