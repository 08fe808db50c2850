// Carries the datagrams of functions: one socket in the host's network namespace per conversation
// (function's address and port, destination's address and port), forgotten after a minute of
// silence. Each datagram out is checked against the policy; answers reach the function as coming
// from whom it wrote to. Router only, loop thread.
#pragma once

#include <functional>
#include <map>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/egress_policy.h"
#include "net/host_routes.h"
#include "net/udp_packet.h"

namespace pulga {

class UdpRelay {
 public:
  // `refused` hears of each datagram of a conversation too many.
  UdpRelay(EventLoop& loop, const EgressPolicy& policy, const HostRoutes& routes,
           std::function<void(Ipv4 function)> refused);
  ~UdpRelay();
  // `socket` receives what the kernel hands over; `reply` is the raw one.
  Status Serve(UniqueFd socket, UniqueFd reply);
  void Drop(Ipv4 address);
  size_t size() const { return flows_.size(); }

 private:
  using FlowKey = std::pair<UdpEnd, UdpEnd>;  // function, destination
  struct Flow {
    UniqueFd fd;
    Holder function;
    TimePoint last;
  };

  void OnDatagram();
  void Forward(const FlowKey& key, const char* data, size_t size);
  Flow* FindOrOpen(const FlowKey& key);
  void OnAnswer(const FlowKey& key);
  std::map<FlowKey, Flow>::iterator Erase(std::map<FlowKey, Flow>::iterator at);
  void Sweep();

  EventLoop& loop_;
  const EgressPolicy& policy_;
  const HostRoutes& routes_;
  UniqueFd socket_;
  UniqueFd reply_;
  std::map<FlowKey, Flow> flows_;
  std::function<void(Ipv4)> refused_;
  ShareLedger shares_;
  EventLoop::TimerId sweep_ = 0;
};

}  // namespace pulga
