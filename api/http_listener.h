// HttpListener: the listening sockets (several TCP addresses and unix paths), accepting without
// spinning when file descriptors run out, and who may have how many connections. Loop thread.
// On failure to listen the error names the address and errno; nothing is left behind.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

// "127.0.0.1:8080", "[::1]:8080", ":8080" (all addresses) or "unix:/path".
struct ListenAddress {
  std::string host;   // numeric; "" for a unix socket
  uint16_t port = 0;  // 0 = any free one
  std::string unix_path;

  bool is_unix() const { return !unix_path.empty(); }
  bool is_loopback() const;
};
Result<ListenAddress> ParseListenAddress(const std::string& text);

struct ConnectionLimits {
  uint32_t tcp = 1024;          // all TCP connections together
  uint32_t per_address = 512;   // at most, and never more than three times what is left
  uint32_t functions = 512;     // of the TCP ones, what came in through the gateway, ...
  uint32_t per_function = 128;  // ... and from one function's address
  uint32_t local = 64;  // unix socket connections, on top: a flooded TCP side leaves these free
};

struct AcceptedConnection {
  UniqueFd fd;  // non-blocking, CLOEXEC
  sockaddr_storage address = {};
  socklen_t address_size = 0;
  std::string peer;            // "ip:port" or "unix"
  std::string limit_key;       // give back to Release() when it is closed
  bool from_function = false;  // came in through the gateway
};

// Somebody new, for whom there is no room.
struct NewCaller {
  // Own share: of the address. Functions: all that may come in through the gateway.
  enum class Full : uint8_t { kOwnShare, kFunctions, kAll };
  std::string limit_key;  // "" = unknown: there is no descriptor to look at it with
  Full full = Full::kAll;
};

class HttpListener {
 public:
  struct Callbacks {
    std::function<void(AcceptedConnection)> on_accept;
    // Before somebody is turned away: Release() what is closed already, ...
    std::function<void()> on_full;
    // ... and then what can be spared. False when there is nothing.
    std::function<bool(const NewCaller&)> evict;
    // Tells somebody for whom there is no room; the socket is closed after.
    std::function<void(int fd, std::string_view why)> turn_away;
  };
  static Result<std::unique_ptr<HttpListener>> Create(EventLoop& loop,
                                                      const std::vector<ListenAddress>& addresses,
                                                      ConnectionLimits limits, Callbacks callbacks);
  ~HttpListener();

  // As bound, with the real port: "127.0.0.1:40123", "unix:/run/pulga.sock".
  const std::vector<std::string>& bound() const { return bound_; }
  // A socket that listens where functions with outbound network are; replaces the one before, and
  // an invalid one just ends it.
  Status ServeGateway(UniqueFd socket);
  void Release(const std::string& limit_key);
  // Closes the listening sockets and removes the unix paths; connections stay.
  void StopAccepting();

 private:
  struct Socket {
    UniqueFd fd;
    std::string unlink_path;
    bool gateway = false;
  };
  HttpListener(EventLoop& loop, ConnectionLimits limits, Callbacks callbacks);
  Status Listen(const ListenAddress& address);
  Status Watch(int fd);
  bool IsGateway(int listen_fd) const;
  void AcceptSome(int listen_fd);
  bool AcceptOne(int listen_fd);
  std::optional<NewCaller::Full> FullFor(const std::string& limit_key) const;
  bool IsGreedy(const std::string& limit_key) const;
  void Admit(AcceptedConnection connection);
  void OnDescriptorsExhausted(int listen_fd);
  void Pause();

  EventLoop& loop_;
  ConnectionLimits limits_;
  Callbacks callbacks_;
  std::vector<Socket> sockets_;
  std::vector<std::string> bound_;
  UniqueFd reserve_;  // given up for a moment to turn a caller away when fds run out
  EventLoop::TimerId pause_timer_ = 0;
  std::map<std::string, uint32_t> open_;
  uint32_t open_tcp_ = 0;
  uint32_t open_functions_ = 0;  // of those
};

}  // namespace pulga
