// The frames protocol's bytes: headers of frames, heads of requests and replies, and a reader that
// takes a function's stream apart. All of it is untrusted. Pure: no I/O, no allocation but for what
// it returns and for a frame that came in pieces.
// Source: docs/frames.md, which is the contract with functions; change both or none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/invocation.h"

namespace pulga {

inline constexpr uint16_t kFramesVersion = 1;
inline constexpr size_t kFrameHeaderBytes = 12;
inline constexpr size_t kMaxFramePayload = 64 * 1024;
inline constexpr size_t kMaxFrameString = 0xffff;
inline constexpr uint32_t kMaxFramesWindow = 1U << 30;

enum class FrameType : uint8_t { kHello = 1, kHead = 2, kBody = 3, kCredit = 4, kCancel = 5 };
enum class FrameEnd : uint8_t {
  kMore = 0,
  kEnd = 1
};  // the flag: nothing follows in this direction

// What each side says first.
struct FramesHello {
  uint16_t version = kFramesVersion;
  uint32_t window = 0;  // bytes of each call's body that the other side may send unasked
  uint32_t calls = 0;   // the daemon's: how many it may have open at once
};

// Appended to `out`.
void AppendFrame(FrameType type, uint32_t id, FrameEnd end, std::string_view payload,
                 std::string* out);
void AppendHello(const FramesHello& hello, std::string* out);
void AppendCredit(uint32_t id, uint32_t bytes, std::string* out);
// 16 bits of length, then the bytes. False, and nothing is appended: it would make `payload` longer
// than a frame may be.
bool AppendFrameString(std::string_view text, std::string* payload);

// Of a reply, checked as an http server's answer is: end-to-end headers alone, none of ours forged.
struct ReplyHead {
  int status = 0;  // 200 to 599
  HeaderList headers;
  std::optional<uint64_t> content_length;
};
// What is wrong with it, or null.
const char* ParseReplyHead(std::string_view payload, ReplyHead* head);

// What a function says, in order. Each returns what is wrong with it, or null.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  virtual const char* OnHello(const FramesHello& hello) = 0;  // once, before everything else
  virtual const char* OnHead(uint32_t id, std::string_view payload, FrameEnd end) = 0;
  // Some bytes of a body; kEnd with the last ones, of which there may be none.
  virtual const char* OnBody(uint32_t id, std::string_view bytes, FrameEnd end) = 0;
  virtual const char* OnCredit(uint32_t id, uint32_t bytes) = 0;
  virtual const char* OnCancel(uint32_t id) = 0;
};

class FrameReader {
 public:
  // All of `bytes`, in whatever pieces they come. Not null: what is wrong; nothing more may be
  // given to it then.
  const char* Take(std::string_view bytes, FrameSink& sink);
  bool greeted() const { return greeted_; }

 private:
  const char* ParseHeader();
  const char* TakeBody(std::string_view* bytes, FrameSink& sink);
  const char* Finish(std::string_view payload, FrameSink& sink);

  std::string partial_;    // of a header, or of a payload that is wanted whole
  bool in_frame_ = false;  // the header is known
  bool greeted_ = false;
  FrameType type_ = FrameType::kHello;
  FrameEnd end_ = FrameEnd::kMore;
  uint32_t id_ = 0;
  uint32_t left_ = 0;  // of the payload
};

}  // namespace pulga
