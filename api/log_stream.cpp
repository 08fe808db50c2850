#include "api/log_stream.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "api/handlers.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kMaxBehind = 256 * 1024;

// Text that is sent bit by bit, while more of it may come.
class Outgoing {
 public:
  size_t size() const { return text_.size() - sent_; }
  void Add(std::string_view more) {
    // What was sent goes before there is more: else a reader that never quite catches up has us
    // keep it all.
    text_.erase(0, std::exchange(sent_, 0));
    text_ += more;
  }
  size_t Take(char* buffer, size_t capacity) {
    const size_t taken = std::min(capacity, size());
    memcpy(buffer, text_.data() + sent_, taken);
    sent_ += taken;
    if (size() == 0) *this = Outgoing();
    return taken;
  }

 private:
  std::string text_;
  size_t sent_ = 0;
};

class LogStream final : public ReplyingHandler {
 public:
  LogStream(HttpExchange& exchange, Engine& engine, LogRequest request)
      : ReplyingHandler(exchange), engine_(engine), request_(std::move(request)) {}
  ~LogStream() override { Unfollow(); }

  void Start() override {
    // Both in one turn of the loop, so that no line is missed or told twice.
    if (request_.follow == LogRequest::Follow::kYes) {
      follow_ = engine_.logs().Follow(request_.key, [this](const LogLine& line) { OnLine(line); });
    }
    engine_.logs().Read(request_.key, request_.query,
                        WhileOpen([this](std::deque<LogLine> lines) { OnRead(std::move(lines)); }));
    HttpReply reply;
    reply.headers = {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}};
    reply.streamed = true;
    exchange().Reply(std::move(reply));
    replied_ = true;
  }

  void OnStopping() override {
    Unfollow();
    exchange().ContinueReply();
  }

  ReadResult Read(char* buffer, size_t capacity) override {
    if (overrun_) return {ReadState::kAborted, 0};
    while (kept_.size() < capacity && !lines_.empty()) {
      kept_.Add(request_.format(lines_.front()));
      lines_.pop_front();
    }
    size_t size = kept_.Take(buffer, capacity);
    if (size == 0 && read_) size = live_.Take(buffer, capacity);
    if (size != 0) return {ReadState::kData, size};
    return {follow_ != 0 || !read_ ? ReadState::kWait : ReadState::kEnd, 0};
  }

 private:
  void Unfollow() {
    if (follow_ != 0) engine_.logs().Unfollow(std::exchange(follow_, 0));
  }

  void OnRead(std::deque<LogLine> lines) {
    read_ = true;
    lines_ = std::move(lines);
    if (replied_) exchange().ContinueReply();
  }

  void OnLine(const LogLine& line) {
    if (!request_.query.Wants(line)) return;
    if (live_.size() > kMaxBehind) {
      overrun_ = true;
    } else {
      live_.Add(request_.format(line));
    }
    if (replied_) exchange().ContinueReply();
  }

  Engine& engine_;
  const LogRequest request_;
  FunctionLogs::FollowId follow_ = 0;
  // What there was goes first, and is no debt of the reader's. It is formatted as it is read: all
  // at once, a long log would keep the loop.
  std::deque<LogLine> lines_;
  Outgoing kept_;
  Outgoing live_;  // what came since
  bool read_ = false;
  bool replied_ = false;
  bool overrun_ = false;
};

// Exactly `size` digits at `text`, which they are taken off.
std::optional<int> TakeDigits(std::string_view& text, size_t size) {
  if (text.size() < size) return std::nullopt;
  const auto value = ParseUint(text.substr(0, size));
  text.remove_prefix(size);
  return value ? std::optional(static_cast<int>(*value)) : std::nullopt;
}

bool TakeSign(std::string_view& text, std::string_view any_of) {
  if (text.empty() || any_of.find(text.front()) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

// "Z", "+01:00": how far it is ahead of UTC.
std::optional<std::chrono::minutes> ZoneOf(std::string_view text) {
  if (text == "Z" || text == "z") return std::chrono::minutes(0);
  if (text.size() != 6 || (text[0] != '+' && text[0] != '-') || text[3] != ':') {
    return std::nullopt;
  }
  const auto hours = ParseUint(text.substr(1, 2), 23);
  const auto minutes = ParseUint(text.substr(4, 2), 59);
  if (!hours || !minutes) return std::nullopt;
  const auto ahead = std::chrono::minutes(*hours * 60 + *minutes);
  return text[0] == '-' ? -ahead : ahead;
}

}  // namespace

std::unique_ptr<HttpHandler> StreamLog(HttpExchange& exchange, Engine& engine, LogRequest request) {
  return std::make_unique<LogStream>(exchange, engine, std::move(request));
}

std::optional<int64_t> ParseRfc3339(std::string_view text) {
  using namespace std::chrono;
  const auto year = TakeDigits(text, 4);
  if (!year || !TakeSign(text, "-")) return std::nullopt;
  const auto month = TakeDigits(text, 2);
  if (!month || !TakeSign(text, "-")) return std::nullopt;
  const auto day = TakeDigits(text, 2);
  if (!day || !TakeSign(text, "Tt ")) return std::nullopt;
  const auto hour = TakeDigits(text, 2);
  if (!hour || *hour > 23 || !TakeSign(text, ":")) return std::nullopt;
  const auto minute = TakeDigits(text, 2);
  if (!minute || *minute > 59 || !TakeSign(text, ":")) return std::nullopt;
  const auto second = TakeDigits(text, 2);
  if (!second || *second > 60) return std::nullopt;
  int millis = 0;
  if (TakeSign(text, ".")) {
    const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    if (digits == 0) return std::nullopt;
    for (size_t i = 0, unit = 100; i < digits && i < 3; ++i, unit /= 10) {
      millis += (text[i] - '0') * static_cast<int>(unit);
    }
    text.remove_prefix(digits);
  }
  const auto zone = ZoneOf(text);
  const year_month_day date{std::chrono::year(*year), std::chrono::month(unsigned(*month)),
                            std::chrono::day(unsigned(*day))};
  if (!zone || !date.ok()) return std::nullopt;
  const auto moment = sys_days(date) + hours(*hour) + minutes(*minute) + seconds(*second) +
                      milliseconds(millis) - *zone;
  return duration_cast<milliseconds>(moment.time_since_epoch()).count();
}

}  // namespace pulga
