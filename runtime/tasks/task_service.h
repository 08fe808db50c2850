// TaskService: the task queue at work. Takes tasks (a group of them per sync), runs them as calls
// through the dispatcher when the board has room for what nobody waits for, keeps the answers and
// sends them to where their callers want them.
// Loop thread; rows are written by a thread of its own, made with the first task. What was taken is
// never lost: a task leaves its row only once its end is in it.
// On failure: a disk that takes no writes refuses new tasks, and nothing begins until it does.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/work_queue.h"
#include "runtime/tasks/callback_holds.h"
#include "runtime/tasks/callback_run.h"
#include "runtime/tasks/lane_holds.h"
#include "runtime/tasks/task_queue.h"
#include "runtime/tasks/task_rules.h"
#include "runtime/tasks/task_run.h"
#include "runtime/tasks/task_store.h"
#include "runtime/tasks/tasks.h"
#include "runtime/version.h"

namespace pulga {

struct TaskParts {
  EventLoop& loop;
  const Clock& clock;
  std::string data_dir;
  std::function<uint64_t()> reserve_bytes;                // of the disk, never filled by tasks
  std::function<VersionPtr(const FunctionKey&)> version;  // null: no such function
  Invoke invoke;
  std::function<BoardRoom()> room;                            // tasks are among its open calls
  std::function<uint32_t(const FunctionKey&)> waiting_calls;  // for an instance of it
  std::function<std::vector<NetworkPrefix>()> networks;       // open to callbacks
  std::function<std::string()> callback_key;                  // a file, or "": they are not signed
  PostCallback post;
};

class TaskService final : public Tasks {
 public:
  TaskService(TaskParts parts, TaskLimits limits);
  ~TaskService() override;

  // Start-up: what an earlier life left. Nothing runs before Resume.
  Status Load();
  // The dispatcher may be asked (again) from now on.
  void Resume();
  // Nothing new is taken or begun; what runs may end.
  void BeginStopping();
  void SetLimits(const TaskLimits& limits);

  Result<std::unique_ptr<Draft>> NewTask(TaskOrder order) override;
  void Watch(CallWatch watch) override { watch_ = std::move(watch); }
  Result<Task> Find(const std::string& id) const override;
  std::vector<Task> List(const TaskFilter& filter) const override;
  void AnswerOf(const std::string& id, std::function<void(Result<TaskAnswer>)> done) override;
  void Cancel(const std::string& id, std::function<void(Status)> done) override;
  void Remove(const std::string& id, std::function<void(Status)> done) override;
  std::optional<int64_t> LastFired(const FunctionKey& function) const override;
  TaskCounts CountsOf(const FunctionKey& function) const override {
    return queue_.Counts(function);
  }
  TaskTotals Totals() const override;

 private:
  class DraftImpl;
  using Done = std::function<void(Status)>;
  struct Write {
    TaskChange change;
    Done done;  // once it is written; empty: it is written some time, whatever it takes
  };

  Status StartThread();
  RetryRules RulesOf(const FunctionKey& function) const;
  Status CheckRoom(uint64_t bytes) const;
  Status CheckDisk(uint64_t bytes) const;
  Status CheckHand(const FunctionKey& function, uint64_t bytes) const;
  void Arrive(const FunctionKey& function, uint64_t bytes);
  void Arrived(const FunctionKey& function, uint64_t bytes);  // or they will not
  void Submit(TaskOrder order, std::string body, std::function<void(Result<std::string>)> done);
  void Put(TaskChange change, Done done = nullptr);
  void Flush();
  void OnWritten(std::vector<Write> batch, const Status& status);
  void Evaluate();
  void EvaluateLater(Duration wait);
  // `held_back`: by calls that people wait for.
  bool MayBegin(const TaskQueue::Lane& lane, TimePoint now, bool* held_back) const;
  uint64_t OpenRuns() const;  // those of `running_` that have a call
  void Begin(uint64_t seq);
  void OnBegun(uint64_t seq, const Status& status);
  void PutBackUntried(uint64_t seq);
  const Task& Untried(uint64_t seq);  // running -> queued, without this attempt
  void OnRequest(uint64_t seq, Result<TaskRequest> request);
  void OnEnd(uint64_t seq, TaskRunEnd end);
  void EndTask(uint64_t seq, TaskState state, const TaskRunEnd& end);
  void Update(const Task& task, std::optional<TaskAnswer> answer = std::nullopt);
  struct OwedCallback {
    CallbackOrder order;
    TaskAnswer answer;
    Result<std::string> key;  // to sign it by
  };
  void EvaluateCallbacks();
  bool MaySend(const Task& task, TimePoint now, bool room);
  void BeginCallback(uint64_t seq);
  void OnOwed(uint64_t seq, Result<OwedCallback> owed);
  // As one more task: delivered once that is on disk.
  void QueueCallback(uint64_t seq, GatewayCall call, CallbackMessage message);
  void OnCallbackEnd(uint64_t seq, const CallbackEnd& end);
  void HoldCallback(uint64_t seq, const CallbackEnd& end);
  void DropCallbacks();                                   // those that too many are owed for
  const TaskAnswer* UnwrittenAnswer(uint64_t seq) const;  // null: none waits to be written
  void ForgetOld(uint64_t more);
  void Forget(uint64_t seq, Done done = nullptr);
  int64_t NowMs() const;

  TaskParts parts_;
  TaskLimits limits_;
  TaskQueue queue_;
  LaneHolds holds_;
  CallbackHolds callback_holds_;
  std::unique_ptr<TaskStore> store_;  // used on `thread_` once that is there
  std::unique_ptr<WorkQueue> thread_;
  std::map<uint64_t, std::unique_ptr<TaskRun>> running_;      // null: its request is being read
  std::map<uint64_t, std::unique_ptr<CallbackRun>> sending_;  // null: its answer is being read
  CallWatch watch_;
  std::vector<Write> unwritten_;
  bool writing_ = false;
  bool fails_ = false;               // the last write, and what it had still waits
  bool callback_unwritten_ = false;  // one waits for its answer to be written
  TimePoint drop_told_;              // in the log
  bool resumed_ = false;
  bool stopping_ = false;
  uint64_t next_seq_ = 1;
  std::map<FunctionKey, int64_t> fired_;  // the last minute of each schedule
  std::set<std::string> arriving_;        // ids of those submitted, not yet on disk
  uint64_t arriving_bytes_ = 0;           // of those and of drafts, in memory
  std::map<FunctionKey, uint64_t> arriving_of_;
  EventLoop::TimerId evaluate_timer_ = 0;
  EventLoop::TimerId retry_timer_ = 0;
  EventLoop::TimerId callback_timer_ = 0;
  EventLoop::TimerId forget_timer_ = 0;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace pulga
