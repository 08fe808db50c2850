#include "runtime/habit_keeper.h"

#include <unistd.h>

#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "runtime/policy/trace.h"

namespace pulga {
namespace {

constexpr size_t kChunk = 64 << 10;

// A server's start and memory are as measured, where they were.
std::string LineOf(const CallHour& hour, const HistoryFacts& facts) {
  using std::chrono::milliseconds;
  uint64_t bytes = facts.bytes;
  Duration init = TraceFunction().init;
  const auto costs = CostBook::Parse(facts.server ? hour.costs : "");
  if (costs.ok() && costs->at(Rung::kFrozen).sights > 0) bytes = costs->at(Rung::kFrozen).bytes;
  if (costs.ok() && costs->at(Rung::kCold).starts > 0) init = costs->at(Rung::kCold).start;
  return hour.key.name_space + "/" + hour.key.name + (facts.timer ? ",timer," : ",caller,") +
         std::to_string(bytes) + "," +
         std::to_string(std::chrono::duration_cast<milliseconds>(init).count()) + "," +
         std::to_string(hour.hour) + "," + hour.minutes + "\n";
}

Result<UniqueFd> WriteHistory(StateStore& store, const HabitKeeper::FactsByKey& facts,
                              const std::string& dir) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd file, OpenUnnamedFile(dir));
  std::string lines = std::string(kHistoryHead) + "\n";
  // A clock that was far ahead once left hours that no replay could reach.
  const auto now = SystemClock().WallTime().time_since_epoch();
  const int64_t latest = now / std::chrono::hours(1) + 1;
  PULGA_RETURN_IF_ERROR(store.ForEachHour([&](const CallHour& hour) -> Status {
    if (hour.hour > latest) return OkStatus();
    const auto known = facts.find(hour.key);
    if (known != facts.end()) lines += LineOf(hour, known->second);
    if (lines.size() < kChunk) return OkStatus();
    return WriteAll(file.get(), std::exchange(lines, ""));
  }));
  PULGA_RETURN_IF_ERROR(WriteAll(file.get(), lines));
  if (lseek(file.get(), 0, SEEK_SET) != 0) return LastError("rewind the history");
  return file;
}

}  // namespace

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
