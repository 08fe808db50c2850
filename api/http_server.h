// HttpServer: HTTP/1.x for callers, by libmicrohttpd in external-epoll mode nested in our loop. The
// only file that knows that library is http_server.cpp. Loop thread; never blocks.
// Guards against what the library lets through: CheckHead (framing, names, targets),
// ConnectionClock (absolute deadlines), HttpListener (limits, accept without fds), raw targets
// only, our own watch for clients that leave while suspended. Destroying it closes every
// connection; handlers still open are destroyed (which cancels).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/connection_clock.h"
#include "api/http_handler.h"
#include "api/http_listener.h"
#include "base/event_loop.h"
#include "base/result.h"

namespace pulga {

struct HttpServerConfig {
  std::vector<ListenAddress> listen;
  ConnectionLimits limits;
  ConnectionPatience patience;
  // Per connection: bounds the request head. Zeroed for each request.
  size_t pool_bytes = 32 * 1024;
};

class HttpServer {
 public:
  // `factory` is asked once per well-formed request.
  static Result<std::unique_ptr<HttpServer>> Create(EventLoop& loop, HttpServerConfig config,
                                                    HandlerFactory factory);
  virtual ~HttpServer() = default;
  virtual const std::vector<std::string>& bound() const = 0;
  // See HttpListener::ServeGateway.
  virtual Status ServeGateway(UniqueFd socket) = 0;
  // No new connections; replies from now on end their connection.
  virtual void StopAccepting() = 0;
  virtual void SetPatience(const ConnectionPatience& patience) = 0;
  virtual size_t open_requests() const = 0;
  virtual size_t open_connections() const = 0;
};

}  // namespace pulga
