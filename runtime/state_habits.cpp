// StateStore's rows of what was learned about functions, and of who was called when.
#include "base/text.h"
#include "runtime/policy/hour_of_calls.h"
#include "runtime/state_store.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;

// Two weeks, and whatever there is of them in so many rows: at 20 to 400 bytes each.
constexpr int64_t kHistoryHours = 14 * 24;
constexpr int64_t kHistoryRows = 50000;

int64_t UnixMillis(Learned::WallTime time) {
  return std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
}

Learned::WallTime FromUnixMillis(int64_t ms) { return Learned::WallTime(milliseconds(ms)); }

// Rows nobody else wrote, but an SD card may have changed.
Result<Learned> ReadLearned(const Statement& row) {
  Learned learned;
  PULGA_ASSIGN_OR_RETURN(learned.habit, IdleHistogram::Parse(row.TextAt(3)));
  PULGA_ASSIGN_OR_RETURN(learned.costs, CostBook::Parse(row.TextAt(4)));
  const int64_t lately = row.IntAt(5), idle_since = row.IntAt(6), at = row.IntAt(7);
  constexpr int64_t kLatest = int64_t{1} << 42;  // the year 2109
  const int64_t memory = row.IntAt(8), cpu = row.IntAt(9);
  constexpr int64_t kMostMemory = int64_t{1} << 40, kMostCpu = int64_t{1} << 30;
  if (lately < 0 || lately > kLatest || idle_since < 0 || idle_since > kLatest || at < 0 ||
      at > kLatest || memory < 0 || memory > kMostMemory || cpu < 0 || cpu > kMostCpu) {
    return Error{Code::kInvalidArgument, 0, "a number out of its range"};
  }
  learned.calls_lately = static_cast<double>(lately) / 1000;
  if (idle_since != 0) learned.idle_since = FromUnixMillis(idle_since);
  learned.at = FromUnixMillis(at);
  if (memory != 0) learned.size = {static_cast<uint64_t>(memory), static_cast<uint32_t>(cpu)};
  return learned;
}

}  // namespace

Status StateStore::LoadHabits(StoredState& state) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT owner, name_space, name, pauses, costs, calls_lately_milli,"
               " idle_since_unix_ms, saved_unix_ms, memory_bytes, cpu_millis"
               " FROM habits JOIN functions ON functions.id = function_id"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    FunctionKey key{rows->TextAt(0), rows->TextAt(1), rows->TextAt(2)};
    auto learned = ReadLearned(*rows);
    if (learned.ok()) {
      state.habits.push_back({std::move(key), std::move(learned).value()});
    } else {
      LogWarning("what was learned about function " + key.name +
                 " is damaged, and is learned anew: " + learned.error().message);
    }
  }
}

Status StateStore::StoreHabits(const std::vector<StoredHabit>& habits) {
  if (habits.empty()) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  for (const StoredHabit& habit : habits) {
    const Result<int64_t> function_id = FunctionId(habit.key);
    if (!function_id.ok() && function_id.error().code == Code::kNotFound) continue;  // deleted
    PULGA_RETURN_IF_ERROR(function_id);
    PULGA_RETURN_IF_ERROR(StoreHabit(*function_id, habit.learned));
    PULGA_RETURN_IF_ERROR(StoreMinutes(*function_id, habit.learned.minutes));
  }
  PULGA_RETURN_IF_ERROR(PruneHistory(habits.front().learned.at));
  return transaction.Commit();
}

Status StateStore::StoreHabit(int64_t function_id, const Learned& learned) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const row,
      Prepared("INSERT INTO habits (function_id, pauses, costs, calls_lately_milli,"
               " idle_since_unix_ms, saved_unix_ms, memory_bytes, cpu_millis)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
               " ON CONFLICT (function_id) DO UPDATE SET pauses = excluded.pauses,"
               " costs = excluded.costs, calls_lately_milli = excluded.calls_lately_milli,"
               " idle_since_unix_ms = excluded.idle_since_unix_ms,"
               " saved_unix_ms = excluded.saved_unix_ms,"
               " memory_bytes = excluded.memory_bytes, cpu_millis = excluded.cpu_millis"));
  const InstanceSize size = learned.size.value_or(InstanceSize{0, 0});
  return row->Int(function_id)
      .Text(learned.habit.Serialise())
      .Text(learned.costs.Serialise())
      .Int(static_cast<int64_t>(learned.calls_lately * 1000))
      .Int(learned.idle_since ? UnixMillis(*learned.idle_since) : 0)
      .Int(UnixMillis(learned.at))
      .Int(static_cast<int64_t>(size.memory_bytes))
      .Int(size.cpu_millis)
      .Run();
}

Status StateStore::StoreMinutes(int64_t function_id, const std::vector<MinuteOfCalls>& minutes) {
  for (size_t i = 0; i < minutes.size();) {
    const int64_t hour = minutes[i].minute / HourOfCalls::kMinutes;
    PULGA_ASSIGN_OR_RETURN(HourOfCalls calls, HourOf(function_id, hour));
    for (; i < minutes.size() && minutes[i].minute / HourOfCalls::kMinutes == hour; ++i) {
      calls.Add(static_cast<uint32_t>(minutes[i].minute % HourOfCalls::kMinutes), minutes[i].calls);
    }
    PULGA_ASSIGN_OR_RETURN(
        Statement* const row,
        Prepared("INSERT INTO call_hours (hour, function_id, minutes) VALUES (?, ?, ?)"
                 " ON CONFLICT (hour, function_id) DO UPDATE SET minutes = excluded.minutes"));
    PULGA_RETURN_IF_ERROR(row->Int(hour).Int(function_id).Text(calls.Serialise()).Run());
  }
  return OkStatus();
}

Result<HourOfCalls> StateStore::HourOf(int64_t function_id, int64_t hour) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const row,
      Prepared("SELECT minutes FROM call_hours WHERE hour = ? AND function_id = ?"));
  PULGA_ASSIGN_OR_RETURN(const bool found, row->Int(hour).Int(function_id).Step());
  if (!found) return HourOfCalls();
  const auto known = HourOfCalls::Parse(row->TextAt(0));
  row->Reset();
  return known.ok() ? *known : HourOfCalls();  // a damaged one is counted anew
}

// Once an hour: else the oldest rows' page would be written each time, too.
Status StateStore::PruneHistory(Learned::WallTime now) {
  const int64_t hour = now.time_since_epoch() / std::chrono::hours(1);
  if (hour == pruned_hour_) return OkStatus();
  pruned_hour_ = hour;
  PULGA_RETURN_IF_ERROR(RunInt("DELETE FROM call_hours WHERE hour < ?",
                               static_cast<uint64_t>(std::max<int64_t>(hour - kHistoryHours, 0))));
  // What a clock that was far ahead left. Not before a day of the past is there: else it is this
  // clock that was not set yet.
  PULGA_RETURN_IF_ERROR(
      RunInt("DELETE FROM call_hours WHERE hour > ?1 + 1 AND EXISTS"
             " (SELECT 1 FROM call_hours WHERE hour <= ?1 - 24)",
             static_cast<uint64_t>(hour)));
  return RunInt(
      "DELETE FROM call_hours WHERE hour <="
      " (SELECT hour FROM call_hours ORDER BY hour DESC, function_id DESC LIMIT 1 OFFSET ?)",
      kHistoryRows);
}

Status StateStore::ForEachHour(const std::function<Status(const CallHour&)>& tell) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT owner, name_space, name, hour, minutes, coalesce(costs, '')"
               " FROM call_hours JOIN functions ON functions.id = function_id"
               " LEFT JOIN habits USING (function_id)"
               " ORDER BY hour, function_id"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    const CallHour hour{{rows->TextAt(0), rows->TextAt(1), rows->TextAt(2)},
                        rows->IntAt(3),
                        rows->TextAt(4),
                        rows->TextAt(5)};
    if (!HourOfCalls::Parse(hour.minutes).ok()) continue;  // damaged
    const Status told = tell(hour);
    if (!told.ok()) rows->Reset();
    PULGA_RETURN_IF_ERROR(told);
  }
}

}  // namespace pulga
