#include <chrono>

#include "api/error_mapping.h"
#include "api/handlers.h"
#include "api/native/routes.h"
#include "base/text.h"
#include "runtime/call_name.h"
#include "runtime/tasks/tasks.h"

namespace pulga {
namespace {

int64_t UnixNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

ApiError RefusalOf(const Error& error) {
  ApiError refusal = ToApiError(error, "function");
  if (IsQueueFull(error)) {
    refusal.status = 429;
    refusal.code = "queue_full";
  }
  if (error.code == Code::kInvalidArgument) refusal.code = "bad_callback";
  return refusal;
}

// Takes a call into the task queue: the body is collected, and answered once it is on disk.
class AsyncHandler final : public ReplyingHandler {
 public:
  AsyncHandler(HttpExchange& exchange, Engine& engine, std::string served_by,
               const PathParams& params)
      : ReplyingHandler(exchange),
        engine_(engine),
        served_by_(std::move(served_by)),
        name_(params.name),
        key_(ParseCallName(params.name)) {
    if (!params.rest.empty()) order_.request.path = params.rest;
  }

  void Start() override {
    const HttpRequest& request = exchange().request();
    form_ = PreferredForm(request);
    order_.id = CallIdOf(request);
    call_id_ = order_.id;
    start_ns_ = UnixNanos();
    const Status valid = ValidateCallName(key_);
    if (!valid.ok()) {
      ApiError refusal = ToApiError(valid.error(), "function");
      refusal.code = "invalid_name";
      if (key_.name.empty()) refusal.status = 404;  // as a call
      return Refuse(refusal);
    }
    if (const std::string* url = request.Header("X-Callback-Url")) {
      order_.callback = CallbackOrder{*url, name_};
      if (request.from_function) order_.callback_scope = CallbackScope::kThisBoard;
    }
    order_.function = key_;
    order_.content_length = request.content_length;
    order_.request.query = request.query();
    const bool forwarded = request.Header("X-Forwarded-For") != nullptr;
    // The id is the task's, which is a new one where this is another's already.
    order_.request.headers = EndToEndHeaders(exchange().TakeHeaders());
    std::erase_if(order_.request.headers,
                  [](const auto& header) { return EqualsIgnoreCase(header.first, "X-Call-Id"); });
    // As a call gets it when it is made; by then this one's caller has left.
    if (!forwarded) order_.request.headers.emplace_back("X-Forwarded-For", request.peer);
    auto draft = engine_.tasks().NewTask(std::move(order_));
    if (draft.ok()) {
      draft_ = std::move(*draft);
    } else {
      Refuse(draft.error());
    }
  }
  size_t OnBody(std::string_view bytes) override {
    if (draft_ == nullptr) return bytes.size();
    const Status taken = draft_->Append(bytes);
    if (!taken.ok()) Refuse(taken.error());
    return bytes.size();
  }
  void OnBodyEnd() override {
    if (draft_ == nullptr) return;
    draft_->Submit(WhileOpen([this](Result<std::string> id) {
      if (!id.ok()) return Refuse(id.error());
      HttpReply reply = EmptyReply(202);
      reply.headers = {{"X-Call-Id", *id},
                       {"X-Start-Time", std::to_string(start_ns_)},
                       {"X-Served-By", served_by_}};
      exchange().Reply(std::move(reply));
    }));
  }

 private:
  void Refuse(const Error& error) {
    if (error.code != Code::kNotFound) return Refuse(RefusalOf(error));
    draft_.reset();
    const Outcome outcome{OutcomeKind::kRejected, 0, std::string(kRejectUnknownFunction)};
    HttpReply reply = FailedCallReply({outcome, "", key_.name + "." + key_.name_space, 0}, form_);
    reply.headers.emplace_back("X-Call-Id", call_id_);
    reply.headers.emplace_back("X-Pulga-Outcome", OutcomeName(outcome));
    exchange().Reply(std::move(reply));
  }
  void Refuse(const ApiError& error) {
    draft_.reset();
    exchange().Reply(RefusedCallReply(error, form_, call_id_));
  }

  Engine& engine_;
  const std::string served_by_;
  const std::string name_;  // as the caller wrote it
  const FunctionKey key_;
  TaskOrder order_;
  std::string call_id_;
  ErrorForm form_ = ErrorForm::kText;
  int64_t start_ns_ = 0;
  std::unique_ptr<Tasks::Draft> draft_;
};

HttpReply CancelReply(const Status& cancelled) {
  if (cancelled.ok()) return EmptyReply(202);
  ApiError error = ToApiError(cancelled.error(), "task");
  HttpReply reply;
  reply.status = error.status;
  reply.headers = {{"Content-Type", "text/plain; charset=utf-8"},
                   {"X-Content-Type-Options", "nosniff"}};
  reply.body = error.message + "\n";
  return reply;
}

}  // namespace

void AddAsyncRoutes(Router& router, Engine& engine) {
  const std::string served_by = "pulga/" + engine.System().version;
  router.Add("POST", "/async-function/{name}/...",
             [&engine, served_by](HttpExchange& exchange, const PathParams& params) {
               return std::make_unique<AsyncHandler>(exchange, engine, served_by, params);
             });
  router.Add("DELETE", "/async-function/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return WithBody(
                   exchange, 0, [&engine, id = params.name](const std::string&, ReplyDone done) {
                     engine.tasks().Cancel(id, [done](const Status& s) { done(CancelReply(s)); });
                   });
             });
}

}  // namespace pulga
