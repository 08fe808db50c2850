// ClientConnections: every open connection and its patience. A sweep cuts those whose time is over,
// and those of whose body the rest will never be read; cutting is shutdown(2), which the owner
// of the socket then notices. When connections run out, it knows whose can be spared. Loop thread.
#pragma once

#include <functional>
#include <list>
#include <optional>
#include <string>

#include "api/connection_clock.h"
#include "api/http_listener.h"
#include "base/event_loop.h"

namespace pulga {

namespace http_server {
class Exchange;
}

struct ClientConnection {
  int fd = -1;  // not owned; valid until Remove
  std::string peer;
  std::string limit_key;
  bool is_tcp = true;
  bool from_function = false;
  bool cut = false;
  bool told_why = false;             // its last words are said
  std::optional<uint64_t> stuck_at;  // body bytes, when a sweep found more that nobody reads
  http_server::Exchange* exchange = nullptr;  // the request it is busy with
  ConnectionClock clock;
  std::list<ClientConnection>::iterator self;
};

// What the kernel knows of a TCP client; of a local one: nothing received, just now.
struct Received {
  uint64_t bytes = 0;
  uint32_t last_ms = 0;  // since the last of them came
};
Received ReceivedOn(const ClientConnection& connection);

class ClientConnections {
 public:
  // `on_expired` may say why to the client before it is cut.
  using OnExpired = std::function<void(ClientConnection&)>;

  ClientConnections(EventLoop& loop, ConnectionPatience patience, OnExpired on_expired)
      : loop_(loop), patience_(patience), on_expired_(std::move(on_expired)) {}
  ~ClientConnections() { loop_.Cancel(sweep_timer_); }
  ClientConnections(const ClientConnections&) = delete;
  ClientConnections& operator=(const ClientConnections&) = delete;

  ClientConnection& Add(const AcceptedConnection& accepted);
  // Cuts one connection so that `caller` gets in: the one that waits the longest for a request, of
  // the caller's own address, or of the TCP address (of functions: the function's) that holds most
  // if those are more than the caller's. Nobody whose call runs. False when there is none.
  bool Evict(const NewCaller& caller);
  void Remove(ClientConnection& connection) { list_.erase(connection.self); }
  std::list<ClientConnection>& all() { return list_; }
  const std::list<ClientConnection>& all() const { return list_; }
  size_t size() const { return list_.size(); }
  void SetPatience(const ConnectionPatience& patience) { patience_ = patience; }

 private:
  void ArmSweep();
  void Sweep();
  void Cut(ClientConnection& connection);

  EventLoop& loop_;
  ConnectionPatience patience_;
  OnExpired on_expired_;
  std::list<ClientConnection> list_;
  EventLoop::TimerId sweep_timer_ = 0;
};

}  // namespace pulga
