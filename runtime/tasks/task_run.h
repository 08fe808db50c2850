// TaskRun: one attempt of a task: an invocation whose caller is the queue. The answer is kept in
// memory up to a limit; what is larger is read to its end and not kept, so that no function is
// ended for an answer nobody asked for. Loop thread. Destroying it cancels the call.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "runtime/invocation.h"
#include "runtime/tasks/task.h"
#include "runtime/tasks/task_rules.h"

namespace pulga {

using Invoke = std::function<std::unique_ptr<Invocation>(InvocationRequest, InvocationObserver&)>;

// Who counts such calls, as those of callers are counted. Of functions that are none it is not
// told.
struct CallWatch {
  std::function<void(const FunctionKey&)> began;
  // `status`: what a caller would have got; 499: given up before its end.
  std::function<void(const FunctionKey&, int status, Duration)> ended;
};

struct TaskRunEnd {
  AttemptEnd end;
  TaskAnswer answer;  // of a call that failed: what people are told, as the body
  double seconds = 0;
};

class TaskRun final : private InvocationObserver {
 public:
  // `most_bytes` of the answer are kept; nullopt: nobody wants any. `done` once, never from inside
  // Start; it may destroy this.
  TaskRun(const Clock& clock, std::optional<uint64_t> most_bytes, const CallWatch& watch,
          std::function<void(TaskRunEnd)> done)
      : clock_(clock), most_bytes_(most_bytes), watch_(watch), done_(std::move(done)) {}
  ~TaskRun();
  // `request` without a body, which is sent on its own.
  void Start(const Invoke& invoke, InvocationRequest request, std::string body);

 private:
  void OnHead() override;
  void OnReadable() override;
  void OnWritable() override { Send(); }
  void Send();
  void Take(std::string_view bytes);
  void Finish();
  void TellEnd(int status);

  const Clock& clock_;
  const std::optional<uint64_t> most_bytes_;
  const CallWatch& watch_;
  std::optional<FunctionKey> watched_;  // its end is to be told
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
