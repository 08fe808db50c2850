// UpgradedConnection: a client's socket once its protocol was switched (101). Bytes go both ways
// between it and the handler, by OnBody and Read, as they come; one block each way is held, and
// what one side does not take stops the other. The client's end of stream is told by OnBodyEnd; the
// handler's end, an abort or a reset ends it all. Loop thread. The socket stays its owner's.
// Source: RFC 9110 section 7.8.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "api/http_handler.h"
#include "base/event_loop.h"

namespace pulga {

class UpgradedConnection {
 public:
  struct Client {
    int fd = -1;
    std::string received;  // behind the request's head, before the switch
  };
  // `handler` must live until the end. `on_end` is the last thing this object does, never from
  // inside Start, and may not destroy it.
  UpgradedConnection(EventLoop& loop, Client client, HttpHandler& handler,
                     std::function<void()> on_end);
  ~UpgradedConnection() { Stop(); }
  UpgradedConnection(const UpgradedConnection&) = delete;
  UpgradedConnection& operator=(const UpgradedConnection&) = delete;

  Status Start();
  // The handler takes bytes again, or has some.
  void Continue();
  // No byte more; on_end is not called.
  void Stop();

 private:
  void OnReady(uint32_t events);
  void PumpIn();
  void PumpOut();
  bool Receive();  // false: nothing came
  bool Send();     // false: wait, or over
  void Rearm();
  void End();

  EventLoop& loop_;
  const int fd_;
  HttpHandler& handler_;
  std::function<void()> on_end_;
  std::string in_;              // received, and not taken yet
  std::string out_;             // read, and not sent yet
  bool may_have_more_ = false;  // to read; this turn was long enough
  bool client_ended_ = false;
  bool ended_ = false;
  bool watching_ = false;
};

}  // namespace pulga
