// Tasks: stored calls as the API sees them. A call is taken once it is on disk, runs at least once,
// in one call at a time, and can be asked about until it is forgotten. Loop thread; `done` is
// called on the loop, never from inside the call. Implemented by TaskService; faked in api/ tests.
// Errors: kUnavailable with EAGAIN: the queue is full, try again later; without: stopping.
#pragma once

#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "runtime/tasks/task_queue.h"
#include "runtime/tasks/task_run.h"

namespace pulga {

// Where the callback of a task may lead. Functions have walls of their own towards the network.
enum class CallbackScope : uint8_t { kNetwork, kThisBoard };

struct TaskOrder {
  FunctionKey function;
  std::string id;       // the call id; one that a task has already is replaced by a new one
  TaskRequest request;  // without its body
  std::optional<uint64_t> content_length;
  std::optional<int64_t> fires_minute;  // of its function's schedule: stored with it
  std::optional<CallbackOrder> callback;
  CallbackScope callback_scope = CallbackScope::kNetwork;
};

struct TaskFilter {
  std::optional<FunctionKey> function;
  std::optional<TaskState> state;
  size_t most = 100;
};

struct TaskTotals {
  TaskCounts counts;
  uint32_t ended = 0;      // and still known
  uint32_t callbacks = 0;  // that those owe
  uint64_t bytes = 0;      // of requests and answers, on disk
};

// Is an error about a full queue, rather than about a daemon that stops?
inline bool IsQueueFull(const Error& error) {
  return error.code == Code::kUnavailable && error.sys_errno == EAGAIN;
}

class Tasks {
 public:
  virtual ~Tasks() = default;

  // A task whose body is still coming. Destroying it takes back what was not submitted.
  class Draft {
   public:
    virtual ~Draft() = default;
    // kTooLarge; kUnavailable with EAGAIN: the memory for such bodies is used up.
    virtual Status Append(std::string_view bytes) = 0;
    // Once: with the task's id when it is on disk. kNoSpace: it did not get there.
    virtual void Submit(std::function<void(Result<std::string>)> done) = 0;
  };
  // kNotFound: no such function. kInvalidArgument: a callback to where none may go.
  virtual Result<std::unique_ptr<Draft>> NewTask(TaskOrder order) = 0;

  // Is told of each call that is made for a task, from now on.
  virtual void Watch(CallWatch watch) = 0;

  virtual Result<Task> Find(const std::string& id) const = 0;
  virtual std::vector<Task> List(const TaskFilter& filter) const = 0;  // the newest first
  // kNotFound: no such task, or it has not ended.
  virtual void AnswerOf(const std::string& id, std::function<void(Result<TaskAnswer>)> done) = 0;
  // Ends it if it waits or runs; kAlreadyExists: it has ended.
  virtual void Cancel(const std::string& id, std::function<void(Status)> done) = 0;
  // Cancels it, if it has not ended, and forgets it with its answer.
  virtual void Remove(const std::string& id, std::function<void(Status)> done) = 0;
  // The last minute (since 1970) of the function's schedule for which there was a task.
  virtual std::optional<int64_t> LastFired(const FunctionKey& function) const = 0;
  virtual TaskCounts CountsOf(const FunctionKey& function) const = 0;
  virtual TaskTotals Totals() const = 0;
};

}  // namespace pulga
