#include "api/cli/http_reply_parser.h"

#include <algorithm>

#include "base/text.h"

namespace pulga::cli {
namespace {

constexpr size_t kMaxHead = 256 * 1024;
constexpr size_t kMaxCollected = 64 << 20;

Error Broken(const std::string& what) {
  return Error{Code::kIo, 0, "the daemon's reply is malformed: " + what};
}

bool ParseHeaderLine(std::string_view line, HeaderList* out) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  out->emplace_back(std::string(line.substr(0, colon)), std::string(Trim(line.substr(colon + 1))));
  return true;
}

const std::string* Find(const HeaderList& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (EqualsIgnoreCase(key, name)) return &value;
  }
  return nullptr;
}

}  // namespace

std::string ClientReply::Header(std::string_view name) const {
  if (const std::string* value = Find(trailers, name)) return *value;
  const std::string* value = Find(headers, name);
  return value != nullptr ? *value : "";
}

Status ReplyParser::Feed(std::string_view bytes) {
  buffer_ += bytes;
  bool progressed = true;
  while (progressed && state_ != State::kDone) {
    progressed = false;
    PULGA_RETURN_IF_ERROR(Step(&progressed));
  }
  return OkStatus();
}

Status ReplyParser::Step(bool* progressed) {
  std::string line;
  switch (state_) {
    case State::kHead: {
      const size_t end = buffer_.find("\r\n\r\n");
      if (end == std::string::npos) {
        if (buffer_.size() > kMaxHead) return Broken("its head is too long");
        return OkStatus();
      }
      const std::string head = buffer_.substr(0, end + 2);
      buffer_.erase(0, end + 4);
      *progressed = true;
      return TakeHead(head);
    }
    case State::kSized:
    case State::kChunkData: {
      if (left_ == 0) {
        *progressed = true;
        if (state_ == State::kSized) {
          Finish();
        } else {
          state_ = State::kChunkEnd;
        }
        return OkStatus();
      }
      *progressed = !buffer_.empty();
      return TakeBody(left_);
    }
    case State::kUntilClose:
      return TakeBody(UINT64_MAX);
    case State::kChunkSize:
      if (!(*progressed = TakeLine(&line))) return OkStatus();
      return TakeChunkSize(line);
    case State::kChunkEnd:
      if (!(*progressed = TakeLine(&line))) return OkStatus();
      if (!line.empty()) return Broken("a chunk does not end where it should");
      state_ = State::kChunkSize;
      return OkStatus();
    case State::kTrailers:
      if (!(*progressed = TakeLine(&line))) return OkStatus();
      if (line.empty()) {
        Finish();
      } else if (!ParseHeaderLine(line, &reply_.trailers)) {
        return Broken("a trailer has no name");
      }
      return OkStatus();
    case State::kDone:
      return OkStatus();
  }
  return OkStatus();
}

Status ReplyParser::TakeHead(std::string_view head) {
  reply_.headers.clear();
  bool first = true;
  for (std::string_view line : Split(head, '\n')) {
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (first) {
      const auto status = line.size() >= 12 ? ParseUint(line.substr(9, 3), 999) : std::nullopt;
      if (line.substr(0, 7) != "HTTP/1." || !status) return Broken("this is no HTTP server");
      reply_.status = static_cast<int>(*status);
      first = false;
    } else if (!line.empty() && !ParseHeaderLine(line, &reply_.headers)) {
      return Broken("a header has no name");
    }
  }
  if (reply_.status < 200) return OkStatus();  // 100 Continue: the real head follows
  const std::string* encoding = Find(reply_.headers, "Transfer-Encoding");
  const std::string* length = Find(reply_.headers, "Content-Length");
  if (reply_.status == 204 || reply_.status == 304) {
    Finish();
  } else if (encoding != nullptr) {
    state_ = State::kChunkSize;
  } else if (length != nullptr) {
    const auto size = ParseUint(*length);
    if (!size) return Broken("Content-Length is no number");
    left_ = *size;
    state_ = State::kSized;
  } else {
    state_ = State::kUntilClose;
  }
  return OkStatus();
}

Status ReplyParser::TakeChunkSize(std::string_view line) {
  line = Trim(line.substr(0, line.find(';')));
  if (line.empty() || line.size() > 15) return Broken("a chunk has no size");
  left_ = 0;
  for (char c : line) {
    const size_t digit = std::string_view("0123456789abcdef").find(static_cast<char>(c | 0x20));
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && digit == std::string_view::npos) return Broken("a chunk has no size");
    left_ = left_ * 16 + (is_digit ? static_cast<uint64_t>(c - '0') : digit);
  }
  state_ = left_ == 0 ? State::kTrailers : State::kChunkData;
  return OkStatus();
}

Status ReplyParser::TakeBody(uint64_t at_most) {
  const size_t size = static_cast<size_t>(std::min<uint64_t>(at_most, buffer_.size()));
  if (size == 0) return OkStatus();
  Status taken;
  if (sink_) {
    taken = sink_(reply_, std::string_view(buffer_).substr(0, size));
  } else if (reply_.body.size() + size > kMaxCollected) {
    taken = Error{Code::kTooLarge, 0, "the reply is larger than 64 MiB"};
  } else {
    reply_.body.append(buffer_, 0, size);
  }
  buffer_.erase(0, size);
  if (left_ != 0) left_ -= size;
  return taken;
}

bool ReplyParser::TakeLine(std::string* line) {
  const size_t end = buffer_.find('\n');
  if (end == std::string::npos) return false;
  *line = buffer_.substr(0, end);
  if (!line->empty() && line->back() == '\r') line->pop_back();
  buffer_.erase(0, end + 1);
  return true;
}

Status ReplyParser::End() {
  if (state_ == State::kUntilClose) Finish();
  if (state_ == State::kHead) {
    return Error{Code::kIo, 0, "the daemon closed the connection without a reply"};
  }
  if (state_ != State::kDone) state_ = State::kDone;  // `complete` stays false
  return OkStatus();
}

void ReplyParser::Finish() {
  reply_.complete = true;
  state_ = State::kDone;
}

}  // namespace pulga::cli
