// ClientConnections: every open connection and its patience. A sweep cuts those whose time is over;
// cutting is shutdown(2), which the owner of the socket then notices. Loop thread.
#pragma once

#include <list>
#include <string>

#include "api/connection_clock.h"
#include "api/http_listener.h"
#include "base/event_loop.h"

namespace pulga {

struct ClientConnection {
  int fd = -1;  // not owned; valid until Remove
  std::string peer;
  std::string limit_key;
  bool is_tcp = true;
  bool cut = false;
  ConnectionClock clock;
  std::list<ClientConnection>::iterator self;
};

class ClientConnections {
 public:
  ClientConnections(EventLoop& loop, ConnectionPatience patience)
      : loop_(loop), patience_(patience) {}
  ~ClientConnections() { loop_.Cancel(sweep_timer_); }
  ClientConnections(const ClientConnections&) = delete;
  ClientConnections& operator=(const ClientConnections&) = delete;

  ClientConnection& Add(const AcceptedConnection& accepted);
  void Remove(ClientConnection& connection) { list_.erase(connection.self); }
  size_t size() const { return list_.size(); }
  void SetPatience(const ConnectionPatience& patience) { patience_ = patience; }

 private:
  void ArmSweep();
  void Sweep();

  EventLoop& loop_;
  ConnectionPatience patience_;
  std::list<ClientConnection> list_;
  EventLoop::TimerId sweep_timer_ = 0;
};

}  // namespace pulga
