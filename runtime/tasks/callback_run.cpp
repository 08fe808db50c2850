#include "runtime/tasks/callback_run.h"

#include <utility>

namespace pulga {

void CallbackRun::Start(const Invoke& invoke, const std::string& call_id, GatewayCall call,
                        CallbackMessage message) {
  InvocationRequest request;
  request.function = std::move(call.function);
  request.call_id = call_id;
  request.method = "POST";
  request.path = std::move(call.path);
  request.query = std::move(call.query);
  request.headers = std::move(message.headers);
  call_.Start(invoke, std::move(request), std::move(message.body));
}

void CallbackRun::Start(const PostCallback& post, const Url& url, const CallbackMessage& message) {
  post_ = post(url, message, [this](CallbackEnd end) { Tell(std::move(end)); });
}

void CallbackRun::TellOf(const AttemptEnd& end) {
  Tell({end.status, !NeverBegan(end) && !WasCutShort(end), end.retry_after});
}

void CallbackRun::Tell(CallbackEnd end) {
  const auto done = std::move(done_);
  done(std::move(end));
}

}  // namespace pulga
