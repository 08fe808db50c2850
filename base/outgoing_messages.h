// OutgoingMessages: what goes out through a non-blocking socket that may be full: in order, and
// kept here until there is room. Loop thread.
#pragma once

#include <list>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"

namespace pulga {

class OutgoingMessages {
 public:
  // `socket` outlives this, or Clear() is called first.
  OutgoingMessages(EventLoop& loop, const MessageSocket& socket) : loop_(loop), socket_(socket) {}
  ~OutgoingMessages() { Clear(); }
  OutgoingMessages(const OutgoingMessages&) = delete;
  OutgoingMessages& operator=(const OutgoingMessages&) = delete;

  // Ok: sent, or kept. When the peer is gone later, what is kept is forgotten: its end of file
  // tells. The fds stay the caller's; a message that is kept has duplicates.
  Status Send(std::span<const std::byte> bytes, std::span<const int> fds = {});
  template <typename Pod>
  Status SendPod(const Pod& pod) {
    return Send(std::as_bytes(std::span(&pod, 1)));
  }
  void Clear();
  size_t kept() const { return kept_.size(); }

 private:
  struct Kept {
    std::string bytes;
    std::vector<UniqueFd> fds;
  };
  void SendKept();
  void TryLater();

  EventLoop& loop_;
  const MessageSocket& socket_;
  std::list<Kept> kept_;  // empty in most, and then without a block of its own
  EventLoop::TimerId retry_ = 0;
};

}  // namespace pulga
