// RawReply: one reply written straight to a client's socket while its request is still coming in,
// which the library below can not do: a refusal in the middle of a body, or a function that answers
// while it reads. Bounded buffer; waits for the socket with our own loop. The connection ends
// after. Loop thread. The socket stays the library's; nothing of the library may write to it
// meanwhile.
#pragma once

#include <functional>
#include <string>

#include "api/http_handler.h"
#include "base/event_loop.h"

namespace pulga {

class RawReply {
 public:
  enum class End { kDone, kBroken };
  using OnEnd = std::function<void(End)>;  // the last thing this object does; may not destroy it

  RawReply(EventLoop& loop, int fd, OnEnd on_end)
      : loop_(loop), fd_(fd), on_end_(std::move(on_end)) {}
  ~RawReply() { Stop(); }
  RawReply(const RawReply&) = delete;
  RawReply& operator=(const RawReply&) = delete;

  // `handler` is pulled when `reply` is streamed, and must live until the end.
  void Start(const HttpRequest& request, const HttpReply& reply, HttpHandler* handler);
  // The handler has more.
  void Continue() { Pump(); }
  // Writes no more; on_end is not called.
  void Stop();
  bool ended() const { return ended_; }

 private:
  enum class Framing { kChunked, kPlain };
  void Pump();
  bool Send();  // false: wait, or over
  bool Fill();  // false: wait, or over
  void AppendLast();
  void Watch(uint32_t events);
  void Finish(End end);

  EventLoop& loop_;
  int fd_;
  OnEnd on_end_;
  HttpHandler* handler_ = nullptr;  // null: nothing more to pull
  Framing framing_ = Framing::kPlain;
  std::string out_;
  size_t sent_ = 0;
  bool watching_ = false;
  bool ended_ = false;
  bool pumping_ = false;
};

}  // namespace pulga
