#include <cstring>
#include <map>

#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr size_t kMaxBody = 64 * 1024;
// Lines a slow reader has not taken yet; more progress is left out, the result never.
constexpr size_t kMaxBehind = 64 * 1024;

// Two ways to answer: once, when the pull is done; or, where Accept names ndjson, a line for each
// progress and a last one with "result" or "error".
class PullHandler final : public ReplyingHandler {
 public:
  PullHandler(HttpExchange& exchange, Engine& engine)
      : ReplyingHandler(exchange), engine_(engine) {}

  void Start() override {
    streamed_ = Accepts(exchange().request(), "application/x-ndjson");
    if (exchange().request().content_length.value_or(0) > kMaxBody) RefuseSize();
  }

  size_t OnBody(std::string_view bytes) override {
    if (body_.size() + bytes.size() > kMaxBody) {
      RefuseSize();
    } else {
      body_ += bytes;
    }
    return bytes.size();
  }

  void OnBodyEnd() override {
    auto request = ParsePullBody(body_);
    body_.clear();
    if (!request.ok()) return exchange().Reply(ErrorReply(ToApiError(request.error(), "image")));
    const auto ref = ParseImageRef(request->ref);
    if (!ref.ok()) {
      ApiError error = ToApiError(ref.error(), "image");
      error.code = "invalid_ref";
      return exchange().Reply(ErrorReply(error));
    }
    if (streamed_) {
      HttpReply reply;
      reply.headers = {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}};
      reply.streamed = true;
      exchange().Reply(std::move(reply));
    }
    pull_ =
        engine_.PullImage(std::move(*request),
                          WhileOpen([this](const PullProgress& progress) { OnProgress(progress); }),
                          WhileOpen([this](const ImportReport& report) { OnDone(report); }));
  }

  ReadResult Read(char* buffer, size_t capacity) override {
    if (lines_.empty()) return {done_ ? ReadState::kEnd : ReadState::kWait, 0};
    const size_t size = std::min(capacity, lines_.size());
    memcpy(buffer, lines_.data(), size);
    lines_.erase(0, size);
    return {ReadState::kData, size};
  }

 private:
  void RefuseSize() {
    const Error error{Code::kTooLarge, 0, "the request body is too large"};
    exchange().Reply(ErrorReply(ToApiError(error, "image")));
  }

  void OnProgress(const PullProgress& progress) {
    if (!streamed_ || lines_.size() > kMaxBehind) return;
    lines_ += PullProgressJson(progress);
    exchange().ContinueReply();
  }

  void OnDone(const ImportReport& report) {
    done_ = true;
    const bool ok = report.status.ok();
    if (!streamed_) {
      if (!ok) return exchange().Reply(ErrorReply(ToApiError(report)));
      return exchange().Reply(JsonReply(report.anything_new ? 201 : 200, ImportReportJson(report)));
    }
    std::string line = ok ? ImportReportJson(report) : ErrorJson(ToApiError(report));
    if (ok) {
      while (line.ends_with('\n')) line.pop_back();
      line = "{\"result\":" + line + "}";
    }
    lines_ += line.ends_with('\n') ? line : line + "\n";
    exchange().ContinueReply();
  }

  Engine& engine_;
  std::unique_ptr<Engine::Pull> pull_;
  std::string body_;
  std::string lines_;
  bool streamed_ = false;
  bool done_ = false;
};

}  // namespace

std::unique_ptr<HttpHandler> MakePullHandler(HttpExchange& exchange, Engine& engine) {
  return std::make_unique<PullHandler>(exchange, engine);
}

}  // namespace pulga
