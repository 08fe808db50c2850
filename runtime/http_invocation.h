// HttpInvocation: one request passed to the instance's own server and its answer passed back, both
// streamed with bounded buffers. A small answer is held until it is whole. Loop thread.
// Repeats a request once, and only if a reused idle connection broke before any byte of an answer
// and the request may be repeated. A young watchdog that says its own server is not there yet is
// asked again. A time-out closes the connection; the instance is replaced after
// three in a row. A connection whose protocol was switched ends with either side's end, or when it
// was silent for the version's timeout. A connection lost in mid-answer waits 100 ms for the news
// that the instance died, which is then the outcome; else it is BadResponse. Source:
// runtime/README.md; RFC 9112.
#pragma once

#include <memory>
#include <string>

#include "runtime/http_response_parser.h"
#include "runtime/server_call.h"
#include "runtime/upstream.h"

namespace pulga {

class HttpInvocation final : public ServerCall, private UpstreamUser {
 public:
  using ServerCall::ServerCall;
  ~HttpInvocation() override;

  size_t Write(std::string_view bytes) override;
  void EndBody() override;
  ReadResult Read(char* buffer, size_t capacity) override;
  std::optional<std::string_view> WholeBody() const override;

  void OnInstance(Instance& instance, StartKind start) override;
  void OnInstanceExit(Instance& instance, const InstanceExit& exit,
                      const SlotTimes& times) override;
  bool Movable() const override { return connection_ == nullptr && !lingering_ && !head_told(); }
  void OnMoved() override;
  // A switched connection lasts as long as its two sides have something to say.
  bool ShowsLatency() const override { return !switched_; }

 private:
  // UpstreamUser
  void OnConnection(std::unique_ptr<UpstreamConnection> connection) override;
  void OnUpstream(uint32_t events) override;

  void CloseIo() override;
  void Connect(Upstream::Want want);
  // The request's side
  void Frame(std::string_view bytes, std::string* wire) const;
  void Flush();
  size_t SendDirect(std::string_view bytes);
  bool RequestSent() const { return wire_.empty() && BodyComplete(); }
  // The answer's side. Those that return bool: false = wait, or it is over.
  void Drive();
  bool Receive();  // some bytes into the buffer
  bool ParseHead();
  void OnFinalHead();
  // After 101: bytes of another protocol, both ways.
  void Switch();
  void AwaitSilence();
  void OnSilence();
  void TellHead();
  void Complete();
  bool Decode();
  bool OnDecoded(const ChunkedDecoder::Step& step, size_t raw);
  ReadResult Copy(char* buffer, size_t capacity);
  ReadResult ReadDirect(char* buffer, size_t capacity);
  ReadResult ReadChunked(char* buffer, size_t capacity);
  ReadResult NoMore() const;  // what Read() says when no byte came
  void OnPeerEnd();
  void OnBroken();
  bool Repeatable() const;
  bool IsColdWatchdog() const;
  bool MayAskAgain() const;
  void AskAgainLater();
  void KeepForReplay(std::string_view bytes);

  std::unique_ptr<UpstreamConnection> connection_;
  bool waiting_for_connection_ = false;
  bool repeated_ = false;
  EventLoop::TimerId again_timer_ = 0;
  Duration again_delay_{0};
  bool replayable_ = false;  // a young instance, and all of the body is in replay_
  std::string replay_;

  std::string wire_;            // of the request: what the socket did not take yet
  std::string pending_;         // body from before there was a connection
  bool body_unwanted_ = false;  // the server stopped reading, or has answered
  bool request_begun_ = false;  // some byte of it was sent

  BufferPool::Buffer buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;  // [begin_, end_): the head; later body bytes to be read
  size_t end_ = 0;
  size_t seen_ = 0;       // searched for the head's end already
  uint32_t interim_ = 0;  // 1xx answers skipped
  bool answer_begun_ = false;
  bool readable_ = false;
  UpstreamHead answer_;
  ChunkedDecoder chunks_;
  bool switched_ = false;
  TimePoint spoken_;  // when the last byte was passed on; then silence is the limit
  EventLoop::TimerId silence_timer_ = 0;
  uint64_t body_left_ = 0;  // kLength: not received yet
  bool surplus_ = false;    // bytes after the answer's end
  bool head_done_ = false;
  bool whole_ = false;  // all of the body is in the buffer
  bool complete_ = false;
  bool lingering_ = false;  // broken; does the instance's death explain it?
  EventLoop::TimerId linger_timer_ = 0;
  std::optional<Outcome> death_;  // the instance's, while the rest is still read
};

}  // namespace pulga
