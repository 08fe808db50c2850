// SimServer: an HTTP server of a simulation, on the loop it is asked from. Each connection is a
// pair of local sockets, connected before it is handed out; a request is told as its head has come,
// and is answered whenever the simulation says so. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/unique_fd.h"

namespace pulga::testing {

class SimServer {
 public:
  using ConnectionId = uint64_t;
  SimServer(EventLoop& loop, std::function<void(ConnectionId)> on_request)
      : loop_(loop), on_request_(std::move(on_request)) {}
  ~SimServer();
  SimServer(const SimServer&) = delete;
  SimServer& operator=(const SimServer&) = delete;

  UniqueFd Connect();  // the caller's end
  // 200 with `body`. False: whoever asked has left.
  bool Reply(ConnectionId connection, std::string_view body);
  uint32_t OpenRequests() const;  // of those who are still there

 private:
  struct Connection {
    UniqueFd fd;
    std::string head;  // as far as it has come
    bool asked = false;
  };
  void OnReadable(ConnectionId id);

  EventLoop& loop_;
  std::function<void(ConnectionId)> on_request_;
  std::map<ConnectionId, Connection> connections_;
  ConnectionId last_ = 0;
};

}  // namespace pulga::testing
