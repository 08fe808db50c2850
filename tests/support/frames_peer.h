// FramesPeer: a frames function's side of its channel, for scripted programs. Blocking, on the
// program's own thread. What the daemon says is read by the daemon's own reader: it has to keep to
// the protocol as well.
#pragma once

#include <sys/socket.h>

#include <deque>
#include <optional>
#include <string>

#include "base/check.h"
#include "runtime/frames_wire.h"
#include "tests/support/fake_sandbox.h"

namespace pulga::testing {

struct Frame {
  FrameType type = FrameType::kHello;
  uint32_t id = 0;
  std::string payload;  // of a credit: its bytes, in digits
  FrameEnd end = FrameEnd::kMore;
};

class FramesPeer final : private FrameSink {
 public:
  explicit FramesPeer(FakeProgram& program) : FramesPeer(program.channel()) {}
  explicit FramesPeer(int fd) : fd_(fd) {}

  void Hello(uint32_t window = 64 * 1024) {
    AppendHello({kFramesVersion, window, 0}, &out_);
    Flush();
  }
  // Nothing: the daemon closed the channel. The first one is its hello.
  std::optional<Frame> Next() {
    char buffer[4096];
    while (frames_.empty()) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return std::nullopt;
      const char* problem = reader_.Take({buffer, static_cast<size_t>(n)}, *this);
      PULGA_CHECK(problem == nullptr);
    }
    Frame frame = std::move(frames_.front());
    frames_.pop_front();
    return frame;
  }
  // The next request's head; what else comes is passed over.
  std::optional<Frame> NextHead() {
    std::optional<Frame> frame = Next();
    while (frame && frame->type != FrameType::kHead) frame = Next();
    return frame;
  }
  void Head(uint32_t id, uint16_t status, HeaderList headers = {}, FrameEnd end = FrameEnd::kMore) {
    std::string payload = {static_cast<char>(status & 0xff), static_cast<char>(status >> 8)};
    for (const auto& [name, value] : headers) {
      PULGA_CHECK(AppendFrameString(name, &payload) && AppendFrameString(value, &payload));
    }
    Say(FrameType::kHead, id, end, payload);
  }
  void Say(FrameType type, uint32_t id, FrameEnd end, std::string_view payload = "") {
    AppendFrame(type, id, end, payload, &out_);
  }
  void Credit(uint32_t id, uint32_t bytes) { AppendCredit(id, bytes, &out_); }
  void Raw(std::string_view bytes) { out_ += bytes; }
  void Reply(uint32_t id, std::string_view body) {
    Head(id, 200);
    Say(FrameType::kBody, id, FrameEnd::kEnd, body);
    Flush();
  }
  bool Flush() {
    while (!out_.empty()) {
      const ssize_t n = send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      out_.erase(0, static_cast<size_t>(n));
    }
    return true;
  }

 private:
  const char* Keep(Frame frame) {
    frames_.push_back(std::move(frame));
    return nullptr;
  }
  const char* OnHello(const FramesHello& hello) override {
    return Keep({FrameType::kHello, 0, std::to_string(hello.calls), FrameEnd::kMore});
  }
  const char* OnHead(uint32_t id, std::string_view payload, FrameEnd end) override {
    return Keep({FrameType::kHead, id, std::string(payload), end});
  }
  const char* OnBody(uint32_t id, std::string_view bytes, FrameEnd end) override {
    return Keep({FrameType::kBody, id, std::string(bytes), end});
  }
  const char* OnCredit(uint32_t id, uint32_t bytes) override {
    return Keep({FrameType::kCredit, id, std::to_string(bytes), FrameEnd::kMore});
  }
  const char* OnCancel(uint32_t id) override {
    return Keep({FrameType::kCancel, id, "", FrameEnd::kMore});
  }

  int fd_;
  FrameReader reader_;
  std::deque<Frame> frames_;
  std::string out_;
};

}  // namespace pulga::testing
