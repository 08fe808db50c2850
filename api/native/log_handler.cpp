#include <cstring>

#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "base/text.h"

namespace pulga {
namespace {

// A follower this far behind is dropped: its buffer is ours, not its own.
constexpr size_t kMaxBehind = 256 * 1024;
constexpr size_t kDefaultTail = 100;
constexpr size_t kMaxTail = 10000;

class LogHandler final : public ReplyingHandler {
 public:
  LogHandler(HttpExchange& exchange, Engine& engine, const FunctionKey& key)
      : ReplyingHandler(exchange), engine_(engine), key_(key) {}
  ~LogHandler() override { Unfollow(); }

  void Start() override {
    const auto exists = engine_.Function(key_);
    if (!exists.ok()) return exchange().Reply(ErrorReply(ToApiError(exists.error(), "function")));
    const std::string_view query = exchange().request().query();
    const std::string tail_text = QueryValue(query, "tail").value_or(std::to_string(kDefaultTail));
    const auto tail = ParseUint(tail_text, kMaxTail);
    if (!tail) {
      const Error error{Code::kInvalidArgument, 0,
                        "tail must be a number from 0 to " + std::to_string(kMaxTail) + ", not \"" +
                            Printable(tail_text, 40) + "\""};
      return exchange().Reply(ErrorReply(ToApiError(error, "function")));
    }
    for (const LogLine& line : engine_.logs().Tail(key_, *tail)) waiting_ += LogLineJson(line);
    if (QueryValue(query, "follow") == "1") {
      follow_ = engine_.logs().Follow(key_, [this](const LogLine& line) { OnLine(line); });
    }
    HttpReply reply;
    reply.headers = {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}};
    reply.streamed = true;
    exchange().Reply(std::move(reply));
  }

  void OnStopping() override {
    Unfollow();
    exchange().ContinueReply();
  }

  ReadResult Read(char* buffer, size_t capacity) override {
    if (overrun_) return {ReadState::kAborted, 0};
    if (waiting_.size() == sent_) return {follow_ != 0 ? ReadState::kWait : ReadState::kEnd, 0};
    const size_t size = std::min(capacity, waiting_.size() - sent_);
    memcpy(buffer, waiting_.data() + sent_, size);
    sent_ += size;
    if (sent_ == waiting_.size()) {
      waiting_.clear();
      sent_ = 0;
    }
    return {ReadState::kData, size};
  }

 private:
  void Unfollow() {
    if (follow_ != 0) engine_.logs().Unfollow(std::exchange(follow_, 0));
  }

  void OnLine(const LogLine& line) {
    if (waiting_.size() - sent_ > kMaxBehind) {
      overrun_ = true;
    } else {
      waiting_ += LogLineJson(line);
    }
    exchange().ContinueReply();
  }

  Engine& engine_;
  FunctionKey key_;
  FunctionLogs::FollowId follow_ = 0;
  std::string waiting_;
  size_t sent_ = 0;
  bool overrun_ = false;
};

}  // namespace

std::unique_ptr<HttpHandler> MakeLogHandler(HttpExchange& exchange, Engine& engine,
                                            const FunctionKey& key) {
  return std::make_unique<LogHandler>(exchange, engine, key);
}

}  // namespace pulga
