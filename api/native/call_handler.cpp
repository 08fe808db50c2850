#include <algorithm>
#include <chrono>

#include "api/error_mapping.h"
#include "api/http_handler.h"
#include "api/native/routes.h"
#include "base/text.h"
#include "runtime/call_name.h"

namespace pulga {
namespace {

// A body this large is refused, if it is, before its first byte rather than after its last.
constexpr uint64_t kHoldBodyBytes = 64 * 1024;

// Headers of ours, which a function can not set.
bool IsOurs(std::string_view name) {
  constexpr std::string_view kOurs[] = {"X-Call-Id", "X-Pulga-Start", "X-Pulga-Outcome",
                                        "X-Start-Time", "Server-Timing"};
  if ((name[0] | 0x20) != 'x' && (name[0] | 0x20) != 's') return false;
  return std::any_of(std::begin(kOurs), std::end(kOurs),
                     [&](std::string_view ours) { return EqualsIgnoreCase(name, ours); });
}

class CallHandler final : public HttpHandler, private InvocationObserver {
 public:
  CallHandler(HttpExchange& exchange, const CallContext& context, const PathParams& params)
      : exchange_(exchange),
        context_(context),
        engine_(context.engine),
        loop_(context.loop),
        key_(ParseCallName(params.name)),
        path_(params.rest.empty() ? "/" : params.rest) {}

  void Start() override {
    const HttpRequest& request = exchange_.request();
    form_ = PreferredForm(request);
    call_id_ = CallIdOf(request);
    is_head_ = request.method == "HEAD";
    start_ns_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                    std::chrono::system_clock::now().time_since_epoch())
                    .count();
    const Status valid = ValidateCallName(key_);
    if (!valid.ok()) return RefuseName(valid.error());
    const bool hold =
        request.has_body() && request.content_length.value_or(UINT64_MAX) > kHoldBodyBytes;
    invocation_ = engine_.Invoke(MakeRequest(request), *this);
    NoteStart();
    if (!request.has_body() || !hold) return;
    // A refusal that is known at once is told by this turn's timers, and ours comes after those.
    exchange_.HoldBody();
    hold_timer_ = loop_.CallAfter(Duration::zero(), [this] {
      hold_timer_ = 0;
      exchange_.ContinueBody();
    });
  }
  ~CallHandler() override {
    loop_.Cancel(hold_timer_);
    const TimePoint over = switched_.value_or(loop_.Now());
    if (metered_) context_.metrics->NoteEnded(key_, status_, over - begun_);
  }

  size_t OnBody(std::string_view bytes) override {
    return invocation_ ? invocation_->Write(bytes) : bytes.size();
  }
  void OnBodyEnd() override {
    if (invocation_) invocation_->EndBody();
  }
  ReadResult Read(char* buffer, size_t capacity) override {
    return invocation_->Read(buffer, capacity);
  }
  HeaderList Trailers() override {
    HeaderList trailers;
    if (trailers_) AppendOutcome(&trailers);
    return trailers;
  }

 private:
  InvocationRequest MakeRequest(const HttpRequest& request) {
    InvocationRequest out;
    out.function = key_;
    out.method = request.method;
    out.path = path_;
    out.query = request.query();
    out.content_length = request.content_length;
    out.has_body = request.has_body();
    out.client = request.peer;
    out.upgrade = RequestedUpgrade(request).value_or("");
    out.wants_stream =
        Accepts(request, "text/event-stream") || QueryValue(request.query(), "stream") == "1";
    const std::string* given = request.Header("X-Call-Id");
    const bool replaced = given != nullptr && *given != call_id_;
    out.headers = EndToEndHeaders(exchange_.TakeHeaders());
    if (replaced) {
      const auto is_id = [](const auto& h) { return EqualsIgnoreCase(h.first, "X-Call-Id"); };
      out.headers.erase(std::remove_if(out.headers.begin(), out.headers.end(), is_id),
                        out.headers.end());
    }
    out.call_id = call_id_;
    return out;
  }

  // Not of functions that are none: anybody may make up their names.
  void NoteStart() {
    const Outcome& outcome = invocation_->outcome();
    metered_ = outcome.kind != OutcomeKind::kRejected || outcome.detail != kRejectUnknownFunction;
    if (!metered_) return;
    begun_ = loop_.Now();
    context_.metrics->NoteStarted(key_);
  }

  void RefuseName(const Error& error) {
    ApiError refusal = ToApiError(error, "function");
    refusal.code = "invalid_name";
    if (key_.name.empty()) refusal.status = 404;  // as OpenFaaS' clients expect it
    exchange_.Reply(RefusedCallReply(refusal, form_, call_id_));
  }

  void AppendOutcome(HeaderList* headers) const {
    headers->emplace_back("X-Pulga-Outcome", OutcomeName(invocation_->outcome()));
    std::string timing = ServerTiming(invocation_->receipt());
    if (!timing.empty()) headers->emplace_back("Server-Timing", std::move(timing));
  }
  void AppendReceipt(HeaderList* headers) const {
    headers->emplace_back("X-Call-Id", call_id_);
    headers->emplace_back("X-Start-Time", std::to_string(start_ns_));
    headers->emplace_back("X-Pulga-Start", StartKindName(invocation_->receipt().start));
  }

  void OnHead() override {
    const ResponseHead& head = invocation_->head();
    const bool switches = !head.upgrade.empty();
    if (!switches && (head.status < 200 || head.status > 599)) {
      HttpReply failed = FailedReply(head);
      status_ = failed.status;
      return exchange_.Reply(std::move(failed));
    }
    HttpReply reply;
    reply.status = status_ = head.status;
    reply.headers.reserve(head.headers.size() + 7);
    for (const auto& header : head.headers) {
      if (!IsOurs(header.first)) reply.headers.push_back(header);
    }
    AppendReceipt(&reply.headers);
    const auto is_server = [](const auto& h) { return EqualsIgnoreCase(h.first, "X-Served-By"); };
    if (std::none_of(head.headers.begin(), head.headers.end(), is_server)) {
      reply.headers.emplace_back("X-Served-By", context_.served_by);
    }
    if (switches) {
      switched_ = loop_.Now();
      reply.upgrade = head.upgrade;
      return exchange_.Reply(std::move(reply));
    }
    const auto whole = invocation_->WholeBody();
    // These have no body, and only the length that the function itself told.
    const bool bodiless = is_head_ || head.status == 304;
    if (whole && !bodiless) {
      reply.lent_body = *whole;
    } else {
      reply.streamed = true;
      reply.stream_size = head.content_length;
    }
    // While a chunked reply is under way the end is not known: it follows as trailers.
    trailers_ = reply.streamed && !reply.stream_size && !head.final_outcome_known;
    if (trailers_) {
      // HTTP/1.0 has none: there a reset in place of the end tells (Exchange::BreakOff).
      if (exchange_.request().version != "HTTP/1.0") {
        reply.headers.emplace_back("Trailer", "X-Pulga-Outcome, Server-Timing");
      }
      reply.headers.emplace_back("Server-Timing", ServerTiming(invocation_->receipt()));
    } else {
      AppendOutcome(&reply.headers);
    }
    exchange_.Reply(std::move(reply));
  }

  HttpReply FailedReply(const ResponseHead& head) {
    const FailedCall call{invocation_->outcome(), invocation_->FailureText(),
                          key_.name + "." + key_.name_space, head.retry_after_s};
    HttpReply reply = FailedCallReply(call, form_);
    AppendReceipt(&reply.headers);
    AppendOutcome(&reply.headers);
    return reply;
  }

  void OnReadable() override { exchange_.ContinueReply(); }
  void OnWritable() override { exchange_.ContinueBody(); }

  HttpExchange& exchange_;
  const CallContext& context_;
  Engine& engine_;
  EventLoop& loop_;
  FunctionKey key_;
  std::string path_;
  ErrorForm form_ = ErrorForm::kText;
  bool is_head_ = false;
  bool trailers_ = false;
  bool metered_ = false;
  int status_ = 499;  // what the caller got
  TimePoint begun_;
  std::optional<TimePoint> switched_;  // to another protocol: what was measured ends there
  int64_t start_ns_ = 0;
  std::string call_id_;
  EventLoop::TimerId hold_timer_ = 0;
  std::unique_ptr<Invocation> invocation_;
};

}  // namespace

std::unique_ptr<HttpHandler> MakeCallHandler(HttpExchange& exchange, const CallContext& context,
                                             const PathParams& params) {
  return std::make_unique<CallHandler>(exchange, context, params);
}

void AddCallRoutes(Router& router, CallContext context) {
  const auto shared = std::make_shared<const CallContext>(std::move(context));
  router.Add("*", "/function/{name}/...",
             [shared](HttpExchange& exchange, const PathParams& params) {
               return MakeCallHandler(exchange, *shared, params);
             });
}

}  // namespace pulga
