// KeeperLink: the daemon's end of the socket to the keeper: it is told once that we serve, and
// sends each new launcher's socket. Loop thread. Contract: sandbox/keeper.h.
#pragma once

#include <functional>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "base/result.h"

namespace pulga {

class KeeperLink {
 public:
  struct Events {
    std::function<void(UniqueFd launcher)> on_launcher;
    std::function<void()> on_gone;  // the keeper died; nobody will restart anything
  };
  KeeperLink(EventLoop& loop, UniqueFd socket, Events events);
  ~KeeperLink();
  KeeperLink(const KeeperLink&) = delete;

  Status Start();
  void TellReady() const;

 private:
  void OnReadable();
  void KeepSpare();

  EventLoop& loop_;
  MessageSocket socket_;
  UniqueFd spare_;  // in hand for the descriptor that comes with the next message
  Events events_;
};

}  // namespace pulga
