// Upstream: the connections to one instance's own HTTP server. Sockets are made inside the
// instance's network namespace and handed over unconnected; they are connected here, without
// blocking, and kept alive in a last-in-first-out pool. Loop thread; owns its sockets.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "runtime/notifier.h"

namespace pulga {

class Upstream;
class UpstreamConnection;

class UpstreamUser {
 public:
  virtual ~UpstreamUser() = default;
  // The connection may still be connecting: writes then say "blocked".
  virtual void OnConnection(std::unique_ptr<UpstreamConnection> connection) = 0;
  virtual void OnUpstream(uint32_t events) = 0;  // EPOLLIN etc., once per change
};

enum class Reuse : uint8_t { kFresh, kReused };

// One socket, watched edge-triggered from its birth to its end, so that a request on a kept-alive
// connection costs no epoll_ctl.
class UpstreamConnection {
 public:
  UpstreamConnection(EventLoop& loop, Notifier& notifier, UniqueFd fd);
  ~UpstreamConnection();
  UpstreamConnection(const UpstreamConnection&) = delete;
  UpstreamConnection& operator=(const UpstreamConnection&) = delete;

  Status Connect(uint16_t port);  // to 127.0.0.1; done or in progress
  int fd() const { return fd_.get(); }
  Reuse reuse = Reuse::kFresh;
  bool peer_closed = false;      // EPOLLRDHUP, EPOLLHUP or EPOLLERR was seen
  UpstreamUser* user = nullptr;  // who has it; null while idle
  Upstream* home = nullptr;      // told when an idle one is of no use any more

 private:
  EventLoop& loop_;
  Notifier& notifier_;
  UniqueFd fd_;
};

class Upstream {
 public:
  // `want_sockets` asks for that many more; they come by AddSockets.
  Upstream(EventLoop& loop, Notifier& notifier, uint16_t port, uint32_t max_idle,
           std::function<void(uint16_t)> want_sockets);
  ~Upstream();
  Upstream(const Upstream&) = delete;
  Upstream& operator=(const Upstream&) = delete;

  void AddSockets(std::vector<UniqueFd> sockets);
  // Connects again and again, 0.5 ms doubling to 20 ms, until somebody listens; the connection that
  // succeeded is the first of the pool. Ends by itself only with `ready`.
  void Probe(std::function<void()> ready);

  enum class Want : uint8_t { kAny, kFresh };
  // A connection now, or later by OnConnection.
  std::unique_ptr<UpstreamConnection> Acquire(UpstreamUser* user, Want want);
  void Cancel(UpstreamUser* user);
  void Return(std::unique_ptr<UpstreamConnection> connection);
  void DropIdle(UpstreamConnection* connection);
  void DropKeptAlive() { idle_.clear(); }
  void Close();  // everything idle and unused

 private:
  std::unique_ptr<UpstreamConnection> Fresh(UpstreamUser* user);
  void RetryProbe();
  void ConnectProbe();
  void OnProbe(uint32_t events);
  void ProbeSucceeded();

  EventLoop& loop_;
  Notifier& notifier_;
  uint16_t port_;
  uint32_t max_idle_;
  std::function<void(uint16_t)> want_sockets_;
  std::vector<UniqueFd> sockets_;
  uint32_t asked_ = 0;
  std::vector<std::unique_ptr<UpstreamConnection>> idle_;
  std::deque<UpstreamUser*> waiting_;
  std::function<void()> ready_;
  UniqueFd probe_;
  bool probe_watched_ = false;
  Duration probe_delay_{0};
  EventLoop::TimerId probe_timer_ = 0;
};

// Sends `first` and `second` in one call. Never raises SIGPIPE.
struct SendResult {
  enum class State : uint8_t { kSent, kBlocked, kBroken } state = State::kBlocked;
  size_t size = 0;
};
SendResult SendTwo(int fd, std::string_view first, std::string_view second);

}  // namespace pulga
