#include "runtime/tasks/task_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "base/log.h"
#include "base/text.h"
#include "runtime/sound_database.h"
#include "runtime/tasks/callback_rules.h"

namespace pulga {
namespace {

constexpr const char* kFile = "tasks.db";
constexpr const char* kAdvice =
    " Nothing was changed. Keep a copy of the directory; then move tasks.db* away to go on without "
    "the tasks in it: functions and images are elsewhere and stay.";

// A migration is never edited once released: a change is a new one at the end.
constexpr const char* kSchema1 = R"sql(
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  name_space TEXT NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL
    CHECK (state IN ('queued', 'running', 'done', 'failed', 'dead', 'cancelled')),
  attempts INTEGER NOT NULL,
  interrupts INTEGER NOT NULL,
  created_unix_ms INTEGER NOT NULL,
  not_before_unix_ms INTEGER NOT NULL,
  begun_unix_ms INTEGER NOT NULL,
  ended_unix_ms INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  status INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  function_us INTEGER NOT NULL
) STRICT;
CREATE TABLE requests (
  seq INTEGER PRIMARY KEY REFERENCES tasks(seq) ON DELETE CASCADE,
  path TEXT NOT NULL,
  query TEXT NOT NULL,
  headers TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE TABLE answers (
  seq INTEGER PRIMARY KEY REFERENCES tasks(seq) ON DELETE CASCADE,
  headers TEXT NOT NULL,
  body BLOB NOT NULL
) STRICT;
)sql";
// The last time a function's schedule made a task, in minutes since 1970.
constexpr const char* kSchema2 = R"sql(
CREATE TABLE firings (
  owner TEXT NOT NULL,
  name_space TEXT NOT NULL,
  name TEXT NOT NULL,
  minute INTEGER NOT NULL,
  PRIMARY KEY (owner, name_space, name)
) STRICT, WITHOUT ROWID;
)sql";
// Where the answer of a task is sent, and how that goes.
constexpr const char* kSchema3 = R"sql(
CREATE TABLE callbacks (
  seq INTEGER PRIMARY KEY REFERENCES tasks(seq) ON DELETE CASCADE,
  url TEXT NOT NULL,
  invoked_as TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'owed', 'delivered', 'given-up')),
  tries INTEGER NOT NULL,
  not_before_unix_ms INTEGER NOT NULL,
  error TEXT NOT NULL
) STRICT;
)sql";
constexpr const char* kMigrations[] = {kSchema1, kSchema2, kSchema3};

std::optional<TaskState> StateOf(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(TaskState::kCancelled); ++i) {
    if (TaskStateName(static_cast<TaskState>(i)) == name) return static_cast<TaskState>(i);
  }
  return std::nullopt;
}

std::optional<CallbackState> CallbackStateOf(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(CallbackState::kGivenUp); ++i) {
    if (CallbackStateName(static_cast<CallbackState>(i)) == name) {
      return static_cast<CallbackState>(i);
    }
  }
  return std::nullopt;
}

// Of a row that was joined with its callback's, if there is one.
std::optional<TaskCallback> ReadCallback(const Statement& row) {
  TaskCallback callback;
  const std::string name = row.TextAt(16);
  if (name.empty()) return callback;
  const auto state = CallbackStateOf(name);
  const int64_t tries = row.IntAt(17);
  if (!state || tries < 0 || tries > UINT32_MAX) return std::nullopt;
  callback.state = *state;
  callback.tries = static_cast<uint32_t>(tries);
  callback.not_before_ms = row.IntAt(18);
  callback.error = row.TextAt(19);
  callback.receiver = ReceiverOf(row.TextAt(20));
  return callback;
}

// Rows nobody else wrote, but an SD card may have changed.
std::optional<Task> ReadTask(const Statement& row) {
  Task task;
  const auto state = StateOf(row.TextAt(5));
  const int64_t attempts = row.IntAt(6), interrupts = row.IntAt(7), bytes = row.IntAt(12);
  constexpr int64_t kMost = int64_t{1} << 32;
  const auto fits = [](int64_t n) { return n >= 0 && n < kMost; };
  const int64_t seq = row.IntAt(0);
  auto callback = ReadCallback(row);
  if (!state || seq <= 0 || !fits(attempts) || !fits(interrupts) || !fits(bytes) || !callback) {
    return std::nullopt;
  }
  task.callback = std::move(*callback);
  task.seq = static_cast<uint64_t>(seq);
  task.id = row.TextAt(1);
  task.function = {row.TextAt(2), row.TextAt(3), row.TextAt(4)};
  task.state = *state;
  task.attempts = static_cast<uint32_t>(attempts);
  task.interrupts = static_cast<uint32_t>(interrupts);
  task.created_ms = row.IntAt(8);
  task.not_before_ms = row.IntAt(9);
  task.begun_ms = row.IntAt(10);
  task.ended_ms = row.IntAt(11);
  task.bytes = static_cast<uint64_t>(bytes);
  task.status = static_cast<int>(row.IntAt(13));
  task.outcome = row.TextAt(14);
  task.function_seconds = static_cast<double>(row.IntAt(15)) / 1e6;
  if (task.state == TaskState::kRunning) {
    task.state = TaskState::kQueued;
    ++task.interrupts;
  }
  return task;
}

// What changes while a task lives, in the order of both statements below.
void BindProgress(Statement& row, const Task& task) {
  row.Text(TaskStateName(task.state))
      .Int(task.attempts)
      .Int(task.interrupts)
      .Int(task.not_before_ms)
      .Int(task.begun_ms)
      .Int(task.ended_ms)
      .Int(static_cast<int64_t>(task.bytes))
      .Int(task.status)
      .Text(task.outcome)
      .Int(static_cast<int64_t>(task.function_seconds * 1e6));
}

}  // namespace

bool TaskStore::Exists(const std::string& data_dir) {
  struct stat st = {};
  return stat((data_dir + "/" + kFile).c_str(), &st) == 0;
}

Result<std::unique_ptr<TaskStore>> TaskStore::Open(const std::string& data_dir) {
  PULGA_ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                         OpenSound({data_dir, kFile, kMigrations, kAdvice}));
  return std::unique_ptr<TaskStore>(new TaskStore(std::move(database)));
}

Status TaskStore::RunSeq(const char* sql, uint64_t seq) {
  PULGA_ASSIGN_OR_RETURN(Statement* const statement, Prepared(sql));
  return statement->Int(static_cast<int64_t>(seq)).Run();
}

Result<TaskStore::Loaded> TaskStore::Load() {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const rows,
      Prepared("SELECT t.seq, id, owner, name_space, name, t.state, attempts, interrupts,"
               " created_unix_ms, t.not_before_unix_ms, begun_unix_ms, ended_unix_ms, bytes,"
               " status, outcome, function_us, COALESCE(c.state, ''), COALESCE(c.tries, 0),"
               " COALESCE(c.not_before_unix_ms, 0), COALESCE(c.error, ''),"
               " COALESCE(c.url, '')"
               " FROM tasks t LEFT JOIN callbacks c ON c.seq = t.seq ORDER BY t.seq"));
  Loaded loaded;
  PULGA_RETURN_IF_ERROR(LoadFirings(&loaded));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return loaded;
    loaded.last_seq = static_cast<uint64_t>(std::max<int64_t>(rows->IntAt(0), 0));
    auto task = ReadTask(*rows);
    if (task) {
      loaded.tasks.push_back(std::move(*task));
    } else {
      LogError("a row of " + std::string(kFile) +
               " is damaged, its task does not run: " + Printable(rows->TextAt(1), 64));
    }
  }
}

Status TaskStore::LoadFirings(Loaded* loaded) {
  PULGA_ASSIGN_OR_RETURN(Statement* const rows,
                         Prepared("SELECT owner, name_space, name, minute FROM firings"));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool row, rows->Step());
    if (!row) return OkStatus();
    loaded->fired[{rows->TextAt(0), rows->TextAt(1), rows->TextAt(2)}] = rows->IntAt(3);
  }
}

// --- changes

Status TaskStore::StoreFiring(const FunctionKey& function, int64_t minute) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("INSERT OR REPLACE INTO firings (owner, name_space, name, minute)"
                                  " VALUES (?, ?, ?, ?)"));
  return row->Text(function.owner).Text(function.name_space).Text(function.name).Int(minute).Run();
}

Status TaskStore::SetDurability(TaskChange::Must must) {
  if (durability_ == must) return OkStatus();
  const bool full = must == TaskChange::Must::kSurvivePowerCut;
  PULGA_RETURN_IF_ERROR(
      database_->Execute(full ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL"));
  durability_ = must;
  return OkStatus();
}

Status TaskStore::Apply(const std::vector<TaskChange>& changes) {
  constexpr auto kDurable = TaskChange::Must::kSurvivePowerCut;
  const bool durable = std::any_of(changes.begin(), changes.end(),
                                   [](const TaskChange& c) { return c.must == kDurable; });
  PULGA_RETURN_IF_ERROR(SetDurability(durable ? kDurable : TaskChange::Must::kSurviveUs));
  PULGA_ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(*database_));
  for (const TaskChange& change : changes) PULGA_RETURN_IF_ERROR(ApplyOne(change));
  return transaction.Commit();
}

Status TaskStore::ApplyOne(const TaskChange& change) {
  const uint64_t seq = change.task.seq;
  if (change.kind == TaskChange::Kind::kForget) {
    return RunSeq("DELETE FROM tasks WHERE seq = ?", seq);
  }
  if (change.kind == TaskChange::Kind::kAdd) {
    PULGA_RETURN_IF_ERROR(Add(change.task, *change.request));
    if (change.callback) PULGA_RETURN_IF_ERROR(AddCallback(change.task, *change.callback));
    if (!change.fires_minute) return OkStatus();
    return StoreFiring(change.task.function, *change.fires_minute);
  }
  PULGA_RETURN_IF_ERROR(Update(change.task));
  PULGA_RETURN_IF_ERROR(UpdateCallback(change.task));
  if (!HasEnded(change.task.state)) return OkStatus();
  PULGA_RETURN_IF_ERROR(RunSeq("DELETE FROM requests WHERE seq = ?", seq));
  if (!change.answer) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(
      Statement* const answer,
      Prepared("INSERT OR REPLACE INTO answers (seq, headers, body) VALUES (?, ?, ?)"));
  return answer->Int(static_cast<int64_t>(seq))
      .Text(HeadersText(change.answer->headers))
      .Blob(change.answer->body)
      .Run();
}

Status TaskStore::Add(const Task& task, const TaskRequest& request) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const row,
      Prepared("INSERT INTO tasks (state, attempts, interrupts, not_before_unix_ms, begun_unix_ms,"
               " ended_unix_ms, bytes, status, outcome, function_us, seq, id, owner, name_space,"
               " name, created_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  BindProgress(*row, task);
  PULGA_RETURN_IF_ERROR(row->Int(static_cast<int64_t>(task.seq))
                            .Text(task.id)
                            .Text(task.function.owner)
                            .Text(task.function.name_space)
                            .Text(task.function.name)
                            .Int(task.created_ms)
                            .Run());
  PULGA_ASSIGN_OR_RETURN(Statement* const sent,
                         Prepared("INSERT INTO requests (seq, path, query, headers, body)"
                                  " VALUES (?, ?, ?, ?, ?)"));
  return sent->Int(static_cast<int64_t>(task.seq))
      .Text(request.path)
      .Text(request.query)
      .Text(HeadersText(request.headers))
      .Blob(request.body)
      .Run();
}

Status TaskStore::Update(const Task& task) {
  PULGA_ASSIGN_OR_RETURN(
      Statement* const row,
      Prepared("UPDATE tasks SET state = ?, attempts = ?, interrupts = ?, not_before_unix_ms = ?,"
               " begun_unix_ms = ?, ended_unix_ms = ?, bytes = ?, status = ?, outcome = ?,"
               " function_us = ? WHERE seq = ?"));
  BindProgress(*row, task);
  return row->Int(static_cast<int64_t>(task.seq)).Run();
}

Status TaskStore::AddCallback(const Task& task, const CallbackOrder& callback) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("INSERT INTO callbacks (seq, url, invoked_as, state, tries,"
                                  " not_before_unix_ms, error) VALUES (?, ?, ?, ?, 0, 0, '')"));
  return row->Int(static_cast<int64_t>(task.seq))
      .Text(callback.url)
      .Text(callback.invoked_as)
      .Text(CallbackStateName(task.callback.state))
      .Run();
}

Status TaskStore::UpdateCallback(const Task& task) {
  const TaskCallback& callback = task.callback;
  if (callback.state == CallbackState::kNone) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(
      Statement* const row,
      Prepared("UPDATE callbacks SET state = ?, tries = ?, not_before_unix_ms = ?, error = ?"
               " WHERE seq = ?"));
  return row->Text(CallbackStateName(callback.state))
      .Int(callback.tries)
      .Int(callback.not_before_ms)
      .Text(callback.error)
      .Int(static_cast<int64_t>(task.seq))
      .Run();
}

// --- the large parts

Result<TaskRequest> TaskStore::RequestOf(uint64_t seq) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("SELECT path, query, headers, body FROM requests WHERE seq = ?"));
  PULGA_ASSIGN_OR_RETURN(const bool found, row->Int(static_cast<int64_t>(seq)).Step());
  if (!found) return Error{Code::kNotFound, 0, "the task's request is not there"};
  TaskRequest request{row->TextAt(0), row->TextAt(1), ParseHeadersText(row->TextAt(2)),
                      row->TextAt(3)};
  row->Reset();
  return request;
}

Result<TaskAnswer> TaskStore::AnswerOf(uint64_t seq) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("SELECT headers, body FROM answers WHERE seq = ?"));
  PULGA_ASSIGN_OR_RETURN(const bool found, row->Int(static_cast<int64_t>(seq)).Step());
  if (!found) return Error{Code::kNotFound, 0, "the task has no answer"};
  TaskAnswer answer{ParseHeadersText(row->TextAt(0)), row->TextAt(1)};
  row->Reset();
  return answer;
}

Result<CallbackOrder> TaskStore::CallbackOf(uint64_t seq) {
  PULGA_ASSIGN_OR_RETURN(Statement* const row,
                         Prepared("SELECT url, invoked_as FROM callbacks WHERE seq = ?"));
  PULGA_ASSIGN_OR_RETURN(const bool found, row->Int(static_cast<int64_t>(seq)).Step());
  if (!found) return Error{Code::kNotFound, 0, "the task has no callback"};
  CallbackOrder callback{row->TextAt(0), row->TextAt(1)};
  row->Reset();
  return callback;
}

}  // namespace pulga
