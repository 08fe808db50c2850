// The router: a process without privileges between functions with outbound network and the host's
// network. It has sockets of the router's namespace (net_job.h), lives in the host's, and obeys the
// launcher on one channel (router_wire.h). Loop thread; ends when the launcher does.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "net/dns_stub.h"
#include "net/egress_policy.h"
#include "net/host_routes.h"
#include "net/router_wire.h"
#include "net/tcp_relay.h"
#include "net/udp_relay.h"

namespace pulga {

struct RouterSockets {
  UniqueFd tcp_relay;
  UniqueFd udp_relay;
  UniqueFd udp_reply;
  UniqueFd dns_udp;
  UniqueFd dns_tcp;
};

class Router {
 public:
  // `launcher` must outlive it.
  Router(EventLoop& loop, const MessageSocket& launcher, HostRoutes routes);
  ~Router();
  // Serves once the launcher has told what for.
  Status Start(RouterSockets sockets, std::string resolv_conf);
  // Why the loop was stopped; ok when the launcher has ended it.
  const Status& end() const { return end_; }

 private:
  void OnOrder();
  void Obey(Admission order);
  void SetUp(const RouterOrder& order);
  void AskForPin(const DnsStub::PinRequest& request, std::function<void(bool)> done);
  void TellHostAddresses();
  void OnRefused(Ipv4 function);
  void TellRefused();
  Status Tell(const RouterNotice& notice);
  void GiveUp(const Error& why);

  EventLoop& loop_;
  const MessageSocket& launcher_;
  HostRoutes routes_;
  EgressPolicy policy_;
  TcpRelay tcp_;
  UdpRelay udp_;
  std::unique_ptr<DnsStub> dns_;
  RouterSockets sockets_;  // until the first order
  std::string resolv_conf_;
  UniqueFd addresses_;
  Status end_;
  uint32_t next_request_ = 1;
  struct OpenPin {
    Holder function;
    std::function<void(bool)> done;
  };
  std::map<uint32_t, OpenPin> pins_;
  ShareLedger pin_shares_;
  std::map<Ipv4, uint32_t> refusals_;  // since they were last told
  EventLoop::TimerId refusals_timer_ = 0;
};

}  // namespace pulga
