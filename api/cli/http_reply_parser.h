// ReplyParser: the bytes of one HTTP/1.x reply, in any pieces, to head, body and trailers. Pure.
// Strict enough for our own daemon and for whatever else answers at PULGA_URL by mistake.
#pragma once

#include <string>
#include <string_view>

#include "api/cli/http_client.h"

namespace pulga::cli {

class ReplyParser {
 public:
  explicit ReplyParser(const BodySink& sink) : sink_(sink) {}
  Status Feed(std::string_view bytes);
  // The peer closed its side.
  Status End();
  bool done() const { return state_ == State::kDone; }
  bool has_head() const { return state_ > State::kHead; }
  ClientReply& reply() { return reply_; }

 private:
  enum class State {
    kHead,
    kSized,
    kChunkSize,
    kChunkData,
    kChunkEnd,
    kTrailers,
    kUntilClose,
    kDone
  };
  Status Step(bool* progressed);
  Status TakeHead(std::string_view head);
  Status TakeChunkSize(std::string_view line);
  Status TakeBody(uint64_t at_most);
  bool TakeLine(std::string* line);
  void Finish();

  const BodySink& sink_;
  ClientReply reply_;
  State state_ = State::kHead;
  std::string buffer_;
  uint64_t left_ = 0;
};

}  // namespace pulga::cli
