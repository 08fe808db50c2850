// The resolver functions ask: answers the names of gateway and functions, forwards the rest to the
// board's resolvers, opens what a listed name leads to before it tells. Keeps no cache. Answers
// every question within seconds (once the launcher has opened what a listed name led to): SERVFAIL
// when nobody else does. Router only, loop thread; a reply is believed only from the asked
// resolver, with the right id and question.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/dns_message.h"
#include "net/egress_policy.h"
#include "net/resolv_conf.h"

namespace pulga {

struct DnsStubOptions {
  Ipv4 router;
  std::string resolv_conf = "/etc/resolv.conf";
  Duration try_timeout = std::chrono::milliseconds(1500);  // one resolver, once
  int tries = 3;
  Duration idle_timeout = std::chrono::seconds(10);  // of a TCP connection without a question
  std::function<void(Ipv4 function)> refused = [](Ipv4) {};  // had its share of questions
};

class DnsStub {
 public:
  // Opens an address for a function in the kernel; `done` hears whether it worked.
  struct PinRequest {
    Ipv4 function;
    uint32_t entry = 0;
    Ipv4 address;
    uint32_t seconds = 0;
  };
  using Pinner = std::function<void(const PinRequest&, std::function<void(bool)> done)>;

  DnsStub(EventLoop& loop, EgressPolicy& policy, DnsStubOptions options, Pinner pinner);
  ~DnsStub();
  // The router's sockets, bound to its port 53.
  Status Serve(UniqueFd udp, UniqueFd tcp);
  // Ends the connections of the function at `address`.
  void Drop(Ipv4 address);

 private:
  struct Lookup;
  struct Client;  // a TCP connection
  using ReplyCallback = std::function<void(const std::string&)>;
  enum class Transport { kUdp, kTcp };

  void OnDatagram();
  void OnConnection();
  void Accept(UniqueFd fd, Ipv4 function);
  void AwaitQuestion(Client& client);
  void OnClientReadable(Client& client);
  void DropClient(Client& client);
  void Answer(Ipv4 function, const std::string& message, Transport transport, ReplyCallback reply);
  bool MeansRouter(Ipv4 function, const std::string& name) const;
  bool AnswerHere(Ipv4 function, const DnsQuery& query, const ReplyCallback& reply);
  void NextTry(Lookup& lookup);
  bool SendTry(Lookup& lookup, const Resolver& resolver);
  void OnUpstream(Lookup& lookup, uint32_t events);
  void OnReply(Lookup& lookup, const std::string& message);
  void PinAndReply(Lookup& lookup, const DnsReply& reply);
  void Finish(Lookup& lookup, const std::string& message);
  void Close(Lookup& lookup);

  EventLoop& loop_;
  EgressPolicy& policy_;
  const DnsStubOptions options_;
  Pinner pinner_;
  ResolvConf resolvers_;
  UniqueFd udp_;
  UniqueFd tcp_;
  std::list<std::unique_ptr<Lookup>> lookups_;
  std::list<std::unique_ptr<Client>> clients_;
  ShareLedger lookup_shares_;
  ShareLedger client_shares_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace pulga
