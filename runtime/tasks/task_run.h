// TaskRun: one attempt of a task: an invocation whose caller is the queue. The answer is kept in
// memory up to a limit; what is larger is read to its end and not kept, so that no function is
// ended for an answer nobody asked for. Loop thread. Destroying it cancels the call.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "runtime/invocation.h"
#include "runtime/tasks/task.h"
#include "runtime/tasks/task_rules.h"

namespace pulga {

using Invoke = std::function<std::unique_ptr<Invocation>(InvocationRequest, InvocationObserver&)>;

struct TaskRunEnd {
  AttemptEnd end;
  TaskAnswer answer;  // of a call that failed: what people are told, as the body
  double seconds = 0;
};

class TaskRun final : private InvocationObserver {
 public:
  // `done` once, never from inside Start; it may destroy this.
  TaskRun(const Clock& clock, uint64_t most_bytes, std::function<void(TaskRunEnd)> done)
      : clock_(clock), most_bytes_(most_bytes), done_(std::move(done)) {}
  // `request` without a body, which is sent on its own.
  void Start(const Invoke& invoke, InvocationRequest request, std::string body);

 private:
  void OnHead() override;
  void OnReadable() override;
  void OnWritable() override { Send(); }
  void Send();
  void Take(std::string_view bytes);
  void Finish();

  const Clock& clock_;
  const uint64_t most_bytes_;
  std::function<void(TaskRunEnd)> done_;
  std::string body_;
  size_t sent_ = 0;
  bool body_ended_ = false;
  bool head_seen_ = false;
  bool too_large_ = false;
  TimePoint begun_;
  std::string answer_;
  std::unique_ptr<Invocation> invocation_;
};

}  // namespace pulga
