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

struct CallbackEnd {
  // What the receiver answered; or why it did not: kPermission (its address is not allowed),
  // kInvalidArgument (never will be), else as things go.
  Result<int> status = 0;
  bool tried = true;        // false: this board could not, which says nothing about the receiver
  Duration retry_after{0};  // then: what it asks for
};

// A POST that is under way; destroying it gives it up.
class PendingPost {
 public:
  virtual ~PendingPost() = default;
};
// `done` once, on the loop, never from inside the call.
using PostCallback = std::function<std::unique_ptr<PendingPost>(
    const Url&, const CallbackMessage&, std::function<void(CallbackEnd)> done)>;

class CallbackRun {
 public:
  // `done` once, never from inside Start; it may destroy this.
  CallbackRun(const Clock& clock, const CallWatch& watch, std::function<void(CallbackEnd)> done)
      : call_(clock, std::nullopt, watch, [this](const TaskRunEnd& end) { TellOf(end.end); }),
        done_(std::move(done)) {}

  void Start(const Invoke& invoke, const std::string& call_id, GatewayCall call,
             CallbackMessage message);
  void Start(const PostCallback& post, const Url& url, const CallbackMessage& message);

 private:
  void TellOf(const AttemptEnd& end);
  void Tell(CallbackEnd end);

  TaskRun call_;
  std::unique_ptr<PendingPost> post_;
  std::function<void(CallbackEnd)> done_;
};

}  // namespace pulga
