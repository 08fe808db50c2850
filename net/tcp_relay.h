// Carries the TCP connections of functions: each one that the kernel's rules hand over is checked
// once more, connected from the host's network namespace and copied both ways, with half-closes. A
// destination that can not be reached resets the function's connection. Memory is bounded: what one
// side does not take stops the other. Router only, loop thread.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/egress_policy.h"
#include "net/host_routes.h"

namespace pulga {

class TcpRelay {
 public:
  // `refused` hears of each connection too many.
  TcpRelay(EventLoop& loop, const EgressPolicy& policy, const HostRoutes& routes,
           std::function<void(Ipv4 function)> refused);
  ~TcpRelay();
  Status Serve(UniqueFd listener);
  // Ends what the function at `address` has open.
  void Drop(Ipv4 address);
  size_t size() const { return links_.size(); }

 private:
  struct Side {
    UniqueFd fd;
    std::string unsent;  // to this side
    size_t held = 0;     // of memory, for that
    bool ended = false;  // it sends no more
    bool told = false;   // and the other side knows
    // Nothing reaches it any more; what it had said before is still to be read.
    bool failed = false;
    uint32_t watched = 0;
  };
  struct Link {
    Holder function;
    Side inner;  // the function
    Side outer;
    bool connected = false;
    EventLoop::TimerId timer = 0;
    std::list<std::unique_ptr<Link>>::iterator self;
  };

  void OnConnection();
  void Open(UniqueFd fd, Ipv4 function, const Destination& to);
  void OnOuterConnected(Link& link);
  void OnReady(Link& link, Side& side, uint32_t events);
  bool Copy(const Link& link, Side& from, Side& to);
  void Flush(const Link& link, Side& side);
  void Fail(const Link& link, Side& side);
  void Hold(const Link& link, Side& side, size_t size);
  bool WatchFor(Link& link, Side& side, uint32_t events);
  void Rearm(Link& link);
  void Close(Link& link);
  void Reset(Link& link);

  EventLoop& loop_;
  const EgressPolicy& policy_;
  const HostRoutes& routes_;
  UniqueFd listener_;
  std::list<std::unique_ptr<Link>> links_;
  std::function<void(Ipv4)> refused_;
  ShareLedger shares_;
  size_t held_ = 0;
  std::map<uint64_t, size_t> held_by_;  // by version
};

}  // namespace pulga
