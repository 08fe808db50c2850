// CallbackRun: one try to deliver a callback: a call of a function of this board, or a POST by
// whoever may talk to the network. Loop thread; nothing blocks. Destroying it gives the try up.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "base/clock.h"
#include "runtime/tasks/callback_rules.h"
#include "runtime/tasks/task_run.h"

namespace pulga {

struct CallbackMessage {
  HeaderList headers;
  std::string body;
};

// A POST that is under way; destroying it gives it up.
class PendingPost {
 public:
  virtual ~PendingPost() = default;
};
// `done` once, on the loop, never from inside the call: the receiver's HTTP status. Errors:
// kPermission (its address is not allowed), kInvalidArgument (never will be), else as things go.
using PostCallback = std::function<std::unique_ptr<PendingPost>(
    const Url&, const CallbackMessage&, std::function<void(Result<int>)> done)>;

class CallbackRun {
 public:
  // `done` once, never from inside Start; it may destroy this.
  CallbackRun(const Clock& clock, const CallWatch& watch, std::function<void(Result<int>)> done)
      : call_(clock, std::nullopt, watch, [this](const TaskRunEnd& end) { Tell(end.end.status); }),
        done_(std::move(done)) {}

  void Start(const Invoke& invoke, const std::string& call_id, GatewayCall call,
             CallbackMessage message);
  void Start(const PostCallback& post, const Url& url, const CallbackMessage& message);

 private:
  void Tell(Result<int> status);

  TaskRun call_;
  std::unique_ptr<PendingPost> post_;
  std::function<void(Result<int>)> done_;
};

}  // namespace pulga
