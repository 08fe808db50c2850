#include "runtime/frames_wire.h"

#include <algorithm>
#include <cstring>

#include "base/text.h"
#include "runtime/http_response_parser.h"

namespace pulga {
namespace {

constexpr std::string_view kMagic = "PFRM";
constexpr size_t kHelloBytes = 16;
constexpr size_t kMaxHelloBytes = 256;  // of a later version, whose rest is skipped
constexpr uint8_t kEndFlag = 1;

// Little-endian, whatever this processor is.
template <typename T>
void AppendNumber(T value, std::string* out) {
  char bytes[sizeof(T)];
  for (size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<char>((value >> (8 * i)) & 0xff);
  out->append(bytes, sizeof bytes);
}

template <typename T>
T Number(std::string_view bytes) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<unsigned char>(bytes[i])) << (8 * i));
  }
  return value;
}

bool TakeString(std::string_view* payload, std::string_view* text) {
  if (payload->size() < sizeof(uint16_t)) return false;
  const size_t size = Number<uint16_t>(*payload);
  payload->remove_prefix(sizeof(uint16_t));
  if (payload->size() < size) return false;
  *text = payload->substr(0, size);
  payload->remove_prefix(size);
  return true;
}

const char* ParseHello(std::string_view payload, FramesHello* hello) {
  if (payload.substr(0, kMagic.size()) != kMagic) return "its hello is none";
  hello->version = Number<uint16_t>(payload.substr(4));
  hello->window = Number<uint32_t>(payload.substr(8));
  hello->calls = Number<uint32_t>(payload.substr(12));
  if (hello->version != kFramesVersion) return "it speaks another version of the protocol";
  if (hello->window == 0 || hello->window > kMaxFramesWindow) return "its window is out of range";
  return nullptr;
}

}  // namespace

void AppendFrame(FrameType type, uint32_t id, FrameEnd end, std::string_view payload,
                 std::string* out) {
  AppendNumber(static_cast<uint32_t>(payload.size()), out);
  AppendNumber(id, out);
  const char rest[] = {static_cast<char>(type), static_cast<char>(end), 0, 0};
  out->append(rest, sizeof rest).append(payload);
}

void AppendHello(const FramesHello& hello, std::string* out) {
  std::string payload(kMagic);
  AppendNumber(hello.version, &payload);
  AppendNumber(uint16_t{0}, &payload);
  AppendNumber(hello.window, &payload);
  AppendNumber(hello.calls, &payload);
  AppendFrame(FrameType::kHello, 0, FrameEnd::kMore, payload, out);
}

void AppendCredit(uint32_t id, uint32_t bytes, std::string* out) {
  std::string payload;
  AppendNumber(bytes, &payload);
  AppendFrame(FrameType::kCredit, id, FrameEnd::kMore, payload, out);
}

bool AppendFrameString(std::string_view text, std::string* payload) {
  const size_t size = payload->size() + sizeof(uint16_t) + text.size();
  if (text.size() > kMaxFrameString || size > kMaxFramePayload) return false;
  AppendNumber(static_cast<uint16_t>(text.size()), payload);
  payload->append(text);
  return true;
}

const char* ParseReplyHead(std::string_view payload, ReplyHead* head) {
  if (payload.size() < sizeof(uint16_t)) return "a head without a status";
  head->status = Number<uint16_t>(payload);
  payload.remove_prefix(sizeof(uint16_t));
  if (head->status < 200 || head->status > 599) return "the status is outside 200 to 599";
  for (size_t count = 0; !payload.empty(); ++count) {
    std::string_view name;
    std::string_view value;
    if (!TakeString(&payload, &name) || !TakeString(&payload, &value)) {
      return "a head that is cut off";
    }
    value = Trim(value);
    if (count == kMaxResponseHeaders) return "more than 200 headers";
    if (!IsHeaderName(name)) return "a malformed header name";
    if (!IsHeaderValue(value)) return "controls in a header value";
    if (EqualsIgnoreCase(name, "content-length")) {
      if (const char* problem = NoteContentLength(value, &head->content_length)) return problem;
    }
    if (!IsHopByHop(name) && !IsOurs(name)) head->headers.emplace_back(name, value);
  }
  return nullptr;
}

const char* FrameReader::Take(std::string_view bytes, FrameSink& sink) {
  while (!bytes.empty()) {
    const char* problem = nullptr;
    if (in_frame_ && type_ == FrameType::kBody) {
      problem = TakeBody(&bytes, sink);
    } else {
      const size_t wanted = in_frame_ ? left_ : kFrameHeaderBytes;
      if (in_frame_ && partial_.empty() && bytes.size() >= wanted) {  // whole: nothing is copied
        problem = Finish(bytes.substr(0, wanted), sink);
        bytes.remove_prefix(wanted);
      } else {
        const size_t n = std::min(bytes.size(), wanted - partial_.size());
        partial_.append(bytes.substr(0, n));
        bytes.remove_prefix(n);
        if (partial_.size() < wanted) return nullptr;
        if (in_frame_) {
          const std::string payload = std::exchange(partial_, std::string());
          problem = Finish(payload, sink);
        } else {
          problem = ParseHeader();
          partial_.clear();
        }
      }
    }
    if (problem != nullptr) return problem;
    if (in_frame_ && left_ == 0) {  // no payload, so no byte would bring it here
      problem = type_ == FrameType::kBody ? TakeBody(&bytes, sink) : Finish({}, sink);
      if (problem != nullptr) return problem;
    }
  }
  return nullptr;
}

// Of every field only what is meant is taken: what a later version adds must not pass unnoticed.
const char* FrameReader::ParseHeader() {
  const std::string_view header = partial_;
  left_ = Number<uint32_t>(header);
  id_ = Number<uint32_t>(header.substr(4));
  const auto type = static_cast<uint8_t>(header[8]);
  const auto flags = static_cast<uint8_t>(header[9]);
  if (type < 1 || type > static_cast<uint8_t>(FrameType::kCancel)) return "an unknown frame type";
  type_ = static_cast<FrameType>(type);
  const bool may_end = type_ == FrameType::kHead || type_ == FrameType::kBody;
  if ((flags & ~kEndFlag) != 0 || (flags != 0 && !may_end)) return "an unknown frame flag";
  end_ = static_cast<FrameEnd>(flags);
  if (Number<uint16_t>(header.substr(10)) != 0) return "reserved bytes that are not 0";
  if (left_ > kMaxFramePayload) return "a frame over 64 KiB";
  if ((type_ == FrameType::kHello) == greeted_) {
    return greeted_ ? "a second hello" : "a frame before its hello";
  }
  if (type_ == FrameType::kHello && (left_ < kHelloBytes || left_ > kMaxHelloBytes || id_ != 0)) {
    return "its hello is none";
  }
  if (type_ == FrameType::kCredit && left_ != sizeof(uint32_t)) return "a credit of a wrong size";
  if (type_ == FrameType::kCancel && left_ != 0) return "a cancel with a payload";
  in_frame_ = true;
  return nullptr;
}

const char* FrameReader::TakeBody(std::string_view* bytes, FrameSink& sink) {
  const std::string_view part = bytes->substr(0, left_);
  bytes->remove_prefix(part.size());
  left_ -= static_cast<uint32_t>(part.size());
  in_frame_ = left_ != 0;
  return sink.OnBody(id_, part, in_frame_ ? FrameEnd::kMore : end_);
}

const char* FrameReader::Finish(std::string_view payload, FrameSink& sink) {
  in_frame_ = false;
  left_ = 0;
  switch (type_) {
    case FrameType::kHello: {
      FramesHello hello;
      if (const char* problem = ParseHello(payload, &hello)) return problem;
      greeted_ = true;
      return sink.OnHello(hello);
    }
    case FrameType::kHead:
      return sink.OnHead(id_, payload, end_);
    case FrameType::kCredit:
      return sink.OnCredit(id_, Number<uint32_t>(payload));
    case FrameType::kCancel:
      return sink.OnCancel(id_);
    case FrameType::kBody:
      break;
  }
  return nullptr;  // bodies never come here
}

}  // namespace pulga
