// LastWords: the one reply that ends a connection which the library below would drop without a
// word, or answer in its own way. Never waits for the client: what the socket does not take at
// once is lost. What the client still sends is dropped for a moment, because closing a socket with
// unread bytes makes the kernel discard the reply. Loop thread. The socket stays its owner's.
#pragma once

#include <list>
#include <string>
#include <string_view>

#include "api/http_handler.h"
#include "base/event_loop.h"
#include "base/unique_fd.h"

namespace pulga {

// Of a request that never became one: JSON for targets under /v1, else text with the receipt of a
// call. `why` is empty where only the library below knows.
HttpReply RefusalOfRequest(int status, std::string_view target, std::string_view why = {});

// Of a connection that is one too many: in the form that what has come of its request asks for,
// which is text where nothing has come yet. Takes that from the socket.
HttpReply RefusalOfConnection(int fd, std::string_view why);

class LastWords {
 public:
  explicit LastWords(EventLoop& loop) : loop_(loop) {}
  ~LastWords();
  LastWords(const LastWords&) = delete;
  LastWords& operator=(const LastWords&) = delete;

  // Nothing the owner writes to `fd` after this reaches the client.
  void Say(int fd, const HttpReply& reply);
  // Of a socket that all has been said to: drops what its client still sends.
  void Linger(int fd);

 private:
  struct Rest {
    UniqueFd fd;  // keeps the socket open after its owner has closed it
    size_t dropped = 0;
    EventLoop::TimerId timer = 0;
  };
  using Rests = std::list<Rest>;
  void Drop(Rests::iterator rest);
  void End(Rests::iterator rest);

  EventLoop& loop_;
  Rests rests_;
};

}  // namespace pulga
