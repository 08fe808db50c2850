// TaskStore: the rows of tasks, in a database of their own (DATA/tasks.db): its syncs wait for
// nobody else's, and a backup of pulga.db holds no caller's data. A request or an answer is a row
// beside its task's, so that a change of state rewrites a hundred bytes and no body.
// Blocks: start-up, and the task thread. Every call is one transaction.
// Open refuses, and changes nothing, when the file is damaged, foreign or from a newer Pulga.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/database.h"
#include "runtime/tasks/task.h"

namespace pulga {

struct TaskChange {
  enum class Kind : uint8_t {
    kAdd,     // with `request` and, where its task waits to make one, `callback`
    kUpdate,  // `answer`: in place of the request
    kForget,
  } kind = Kind::kUpdate;
  // Must survive a power cut before anybody is told. Others survive the end of our processes, and
  // reach the disk with the next one that must: what is lost is that a task has run, so it runs
  // again.
  enum class Must : uint8_t { kSurvivePowerCut, kSurviveUs } must = Must::kSurviveUs;
  Task task;  // kForget: its seq
  std::optional<TaskRequest> request;
  std::optional<TaskAnswer> answer;
  std::optional<CallbackOrder> callback;
  std::optional<int64_t> fires_minute;  // kAdd: of its function's schedule
};

class TaskStore {
 public:
  static bool Exists(const std::string& data_dir);
  static Result<std::unique_ptr<TaskStore>> Open(const std::string& data_dir);

  struct Loaded {
    std::vector<Task> tasks;               // the oldest first
    uint64_t last_seq = 0;                 // ever given to a row that is there
    std::map<FunctionKey, int64_t> fired;  // the last minute of each function's schedule
  };
  // Those a crash found running are queued. Damaged rows stay where they are and are told in the
  // log.
  Result<Loaded> Load();
  // All of them or, on an error, none.
  Status Apply(const std::vector<TaskChange>& changes);
  // kNotFound: its task has ended, or is none.
  Result<TaskRequest> RequestOf(uint64_t seq);
  // kNotFound: its task has not ended, has no answer or is none.
  Result<TaskAnswer> AnswerOf(uint64_t seq);
  // kNotFound: it has none.
  Result<CallbackOrder> CallbackOf(uint64_t seq);

 private:
  explicit TaskStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  Result<Statement*> Prepared(const char* sql) { return database_->Prepared(sql); }
  Status RunSeq(const char* sql, uint64_t seq);
  Status ApplyOne(const TaskChange& change);
  Status Add(const Task& task, const TaskRequest& request);
  Status StoreFiring(const FunctionKey& function, int64_t minute);
  Status LoadFirings(Loaded* loaded);
  Status Update(const Task& task);
  Status AddCallback(const Task& task, const CallbackOrder& callback);
  Status UpdateCallback(const Task& task);
  Status SetDurability(TaskChange::Must must);

  std::unique_ptr<Database> database_;
  std::optional<TaskChange::Must> durability_;
};

}  // namespace pulga
