#include "net/dns_stub.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/sys.h"
#include "net/service_name.h"

namespace pulga {
namespace {

constexpr ShareLedger::Limits kMaxLookups = {256, 64, 32};
constexpr ShareLedger::Limits kMaxClients = {64, 16, 8};
constexpr int kAcceptsPerTurn = 16;
constexpr size_t kMaxUdpQuestion = 4096;
constexpr int kDatagramsPerTurn = 32;
constexpr uint32_t kLeastTtl = 30;
constexpr uint32_t kLongestTtl = 3600;
// A connection may be tried long after the name was looked up.
constexpr uint32_t kPinGrace = 300;
constexpr uint32_t kOwnNameTtl = 60;

Ipv4 AddressOf(const sockaddr_in& name) { return {ntohl(name.sin_addr.s_addr)}; }

uint16_t RandomId() {
  uint16_t id = 0;
  if (getrandom(&id, sizeof id, 0) != sizeof id) id = 0;
  return id;
}

std::string Framed(const std::string& message) {
  std::string out;
  out += static_cast<char>(message.size() >> 8 & 255);
  out += static_cast<char>(message.size() & 255);
  return out + message;
}

// One framed message from the front of `buffer`, if it is whole.
std::optional<std::string> TakeFramed(std::string& buffer) {
  if (buffer.size() < 2) return std::nullopt;
  const size_t size =
      static_cast<size_t>(static_cast<uint8_t>(buffer[0])) << 8 | static_cast<uint8_t>(buffer[1]);
  if (buffer.size() < 2 + size) return std::nullopt;
  std::string out = buffer.substr(2, size);
  buffer.erase(0, 2 + size);
  return out;
}

}  // namespace

struct DnsStub::Lookup {
  Holder function;
  Transport transport = Transport::kUdp;
  DnsQuery query;
  std::string message;  // with our own id
  uint16_t id = 0;
  int tried = 0;
  UniqueFd fd;
  std::string received;  // kTcp
  bool sent = false;     // kTcp
  EventLoop::TimerId timer = 0;
  size_t pins_open = 0;
  std::vector<Ipv4> pinned;
  uint32_t ttl = kLongestTtl;
  ReplyCallback reply;
  std::list<std::unique_ptr<Lookup>>::iterator self;
};

struct DnsStub::Client {
  UniqueFd fd;
  Holder function;
  std::string received;
  EventLoop::TimerId timer = 0;
  std::shared_ptr<Client*> handle;  // emptied when it is gone
  std::list<std::unique_ptr<Client>>::iterator self;
};

DnsStub::DnsStub(EventLoop& loop, EgressPolicy& policy, DnsStubOptions options, Pinner pinner)
    : loop_(loop),
      policy_(policy),
      options_(std::move(options)),
      pinner_(std::move(pinner)),
      resolvers_(options_.resolv_conf),
      lookup_shares_(kMaxLookups),
      client_shares_(kMaxClients) {}

DnsStub::~DnsStub() {
  *alive_ = false;
  while (!lookups_.empty()) Close(*lookups_.front());
  while (!clients_.empty()) DropClient(*clients_.front());
  for (const UniqueFd* fd : {&udp_, &tcp_}) {
    if (fd->valid()) loop_.Unwatch(fd->get());
  }
}

Status DnsStub::Serve(UniqueFd udp, UniqueFd tcp) {
  udp_ = std::move(udp);
  tcp_ = std::move(tcp);
  PULGA_RETURN_IF_ERROR(loop_.Watch(udp_.get(), EPOLLIN, [this](uint32_t) { OnDatagram(); }));
  return loop_.Watch(tcp_.get(), EPOLLIN, [this](uint32_t) { OnConnection(); });
}

void DnsStub::OnDatagram() {
  char buffer[kMaxUdpQuestion];
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    sockaddr_in from = {};
    socklen_t size = sizeof from;
    const ssize_t n =
        recvfrom(udp_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (n < 0) return;
    Answer(AddressOf(from), std::string(buffer, static_cast<size_t>(n)), Transport::kUdp,
           [this, from](const std::string& reply) {
             (void)sendto(udp_.get(), reply.data(), reply.size(), MSG_DONTWAIT,
                          reinterpret_cast<const sockaddr*>(&from), sizeof from);
           });
  }
}

void DnsStub::OnConnection() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_in from = {};
    socklen_t size = sizeof from;
    UniqueFd fd(PULGA_SYS(accept4, tcp_.get(), reinterpret_cast<sockaddr*>(&from), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) return;
    Accept(std::move(fd), AddressOf(from));
  }
}

void DnsStub::Accept(UniqueFd fd, Ipv4 function) {
  const Holder holder = policy_.HolderAt(function);
  if (!client_shares_.HasRoom(holder)) return options_.refused(function);
  clients_.push_back(std::make_unique<Client>());
  Client& client = *clients_.back();
  client.self = std::prev(clients_.end());
  client.fd = std::move(fd);
  client.function = holder;
  client_shares_.Take(holder);
  client.handle = std::make_shared<Client*>(&client);
  AwaitQuestion(client);
  const Status watched = loop_.Watch(client.fd.get(), EPOLLIN,
                                     [this, &client](uint32_t) { OnClientReadable(client); });
  if (!watched.ok()) DropClient(client);
}

// Part of one is none: who sends byte by byte is not waited for longer.
void DnsStub::AwaitQuestion(Client& client) {
  loop_.Cancel(client.timer);
  client.timer = loop_.CallAfter(options_.idle_timeout, [this, &client] {
    client.timer = 0;
    DropClient(client);
  });
}

void DnsStub::OnClientReadable(Client& client) {
  char buffer[kMaxUdpQuestion];
  const ssize_t n = recv(client.fd.get(), buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return DropClient(client);
  client.received.append(buffer, static_cast<size_t>(n));
  const auto handle = client.handle;
  while (*handle != nullptr) {
    const auto question = TakeFramed(client.received);
    if (!question) break;
    AwaitQuestion(client);
    Answer(client.function.address, *question, Transport::kTcp, [handle](const std::string& reply) {
      if (*handle == nullptr) return;
      const std::string framed = Framed(reply);
      const int fd = (*handle)->fd.get();
      const ssize_t sent = send(fd, framed.data(), framed.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      // Nothing can follow the half of an answer that its asker does not take.
      if (sent != static_cast<ssize_t>(framed.size())) shutdown(fd, SHUT_RDWR);
    });
  }
}

void DnsStub::DropClient(Client& client) {
  *client.handle = nullptr;
  loop_.Cancel(client.timer);
  loop_.Unwatch(client.fd.get());
  client_shares_.Give(client.function);
  clients_.erase(client.self);
}

void DnsStub::Drop(Ipv4 address) {
  for (auto at = clients_.begin(); at != clients_.end();) {
    Client& client = **at++;
    if (client.function.address == address) DropClient(client);
  }
}

// The gateway, or a function behind it: whether there is one, the call tells. What a list names
// somebody has named on purpose.
bool DnsStub::MeansRouter(Ipv4 function, const std::string& name) const {
  const auto service = ParseServiceName(name);
  return service && (service->is_gateway() || policy_.EntriesNaming(function, name).empty());
}

// What needs nobody else. True when it was answered (or deserves no answer).
bool DnsStub::AnswerHere(Ipv4 function, const DnsQuery& query, const ReplyCallback& reply) {
  if (query.type_class != kDnsClassInternet) {
    reply(MakeDnsReply(query, DnsCode::kRefused));
  } else if (MeansRouter(function, query.name)) {
    std::vector<Ipv4> addresses;
    if (query.type == kDnsTypeA) addresses.push_back(options_.router);
    reply(MakeDnsReply(query, DnsCode::kOk, addresses, kOwnNameTtl));
  } else if (!policy_.MayResolve(function, query.name)) {
    reply(MakeDnsReply(query, DnsCode::kRefused));
  } else if (query.type == kDnsTypeAaaa) {
    reply(MakeDnsReply(query, DnsCode::kOk));  // functions have no IPv6 to use it with
  } else if (!lookup_shares_.HasRoom(policy_.HolderAt(function))) {
    options_.refused(function);
    reply(MakeDnsReply(query, DnsCode::kServerFailed));
  } else {
    return false;
  }
  return true;
}

void DnsStub::Answer(Ipv4 function, const std::string& message, Transport transport,
                     ReplyCallback reply) {
  if (!policy_.Knows(function)) return;
  auto query = ParseDnsQuery(message);
  if (!query) {
    if (const auto error = MakeDnsFormatError(message)) reply(*error);
    return;
  }
  if (AnswerHere(function, *query, reply)) return;
  lookups_.push_back(std::make_unique<Lookup>());
  Lookup& lookup = *lookups_.back();
  lookup.self = std::prev(lookups_.end());
  lookup.function = policy_.HolderAt(function);
  lookup.transport = transport;
  lookup.query = std::move(*query);
  lookup.message = message;
  lookup.reply = std::move(reply);
  lookup_shares_.Take(lookup.function);
  NextTry(lookup);
}

void DnsStub::NextTry(Lookup& lookup) {
  if (lookup.fd.valid()) loop_.Unwatch(lookup.fd.get());
  lookup.fd.Reset();
  loop_.Cancel(std::exchange(lookup.timer, 0));
  const auto& resolvers = resolvers_.Current();
  while (!resolvers.empty() && lookup.tried < options_.tries) {
    const Resolver& resolver = resolvers[static_cast<size_t>(lookup.tried++) % resolvers.size()];
    if (!SendTry(lookup, resolver)) continue;
    lookup.timer = loop_.CallAfter(options_.try_timeout, [this, &lookup] {
      lookup.timer = 0;
      NextTry(lookup);
    });
    return;
  }
  Finish(lookup, MakeDnsReply(lookup.query, DnsCode::kServerFailed));
}

bool DnsStub::SendTry(Lookup& lookup, const Resolver& resolver) {
  const bool tcp = lookup.transport == Transport::kTcp;
  const int type = (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  lookup.id = RandomId();
  SetDnsId(lookup.message, lookup.id);
  lookup.received.clear();
  lookup.sent = !tcp;
  lookup.fd.Reset(PULGA_SYS(socket, resolver.address.ss_family, type, 0));
  if (!lookup.fd.valid()) return false;
  const int fd = lookup.fd.get();
  const auto* name = reinterpret_cast<const sockaddr*>(&resolver.address);
  if (connect(fd, name, resolver.size) != 0 && !(tcp && errno == EINPROGRESS)) return false;
  if (!tcp && send(fd, lookup.message.data(), lookup.message.size(), MSG_NOSIGNAL) < 0)
    return false;
  const auto ready = [this, &lookup](uint32_t events) { OnUpstream(lookup, events); };
  return loop_.Watch(fd, tcp ? EPOLLIN | EPOLLOUT : EPOLLIN, ready).ok();
}

void DnsStub::OnUpstream(Lookup& lookup, uint32_t events) {
  const int fd = lookup.fd.get();
  if (!lookup.sent && (events & EPOLLOUT) != 0) {
    const std::string framed = Framed(lookup.message);
    const ssize_t n = send(fd, framed.data(), framed.size(), MSG_NOSIGNAL);
    if (n != static_cast<ssize_t>(framed.size())) return NextTry(lookup);
    lookup.sent = true;
    (void)loop_.Modify(fd, EPOLLIN).ok();
    return;
  }
  static char buffer[kMaxDnsMessage];
  const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0 || (n == 0 && lookup.transport == Transport::kTcp)) return NextTry(lookup);
  if (lookup.transport == Transport::kUdp) {
    return OnReply(lookup, std::string(buffer, static_cast<size_t>(n)));
  }
  lookup.received.append(buffer, static_cast<size_t>(n));
  if (const auto message = TakeFramed(lookup.received)) OnReply(lookup, *message);
}

void DnsStub::OnReply(Lookup& lookup, const std::string& message) {
  const auto reply = ParseDnsReply(message, lookup.query);
  if (!reply || reply->id != lookup.id) return;  // the right one may still come
  if (reply->code == DnsCode::kServerFailed || reply->code == DnsCode::kRefused) {
    return NextTry(lookup);
  }
  if (policy_.EntriesNaming(lookup.function.address, lookup.query.name).empty()) {
    std::string passed_on = message;
    SetDnsId(passed_on, lookup.query.id);
    return Finish(lookup, passed_on);
  }
  if (reply->truncated) {
    std::string empty = MakeDnsReply(lookup.query, DnsCode::kOk);
    empty[2] = static_cast<char>(empty[2] | 2);  // truncated: ask by TCP
    return Finish(lookup, empty);
  }
  if (reply->code != DnsCode::kOk || lookup.query.type != kDnsTypeA) {
    return Finish(lookup, MakeDnsReply(lookup.query, reply->code));
  }
  PinAndReply(lookup, *reply);
}

// A listed name's addresses are told once they are open, and only those that may be.
void DnsStub::PinAndReply(Lookup& lookup, const DnsReply& reply) {
  constexpr size_t kMaxPinsPerAnswer = 16;
  loop_.Cancel(std::exchange(lookup.timer, 0));
  loop_.Unwatch(lookup.fd.get());
  lookup.fd.Reset();
  const Ipv4 function = lookup.function.address;
  const auto entries = policy_.EntriesNaming(function, lookup.query.name);
  const TimePoint now = loop_.Now();
  lookup.pins_open = 1;  // until all are asked for
  size_t pins = 0;
  const auto alive = alive_;
  const auto one_less = [this, alive, &lookup] {
    if (!*alive || --lookup.pins_open > 0) return;
    std::sort(lookup.pinned.begin(), lookup.pinned.end());
    const auto end = std::unique(lookup.pinned.begin(), lookup.pinned.end());
    lookup.pinned.erase(end, lookup.pinned.end());
    Finish(lookup, MakeDnsReply(lookup.query, DnsCode::kOk, lookup.pinned, lookup.ttl));
  };
  for (const DnsAddress& found : reply.addresses) {
    if (!IsPublic(found.address)) continue;
    lookup.ttl = std::min(lookup.ttl, found.ttl);
    const uint32_t seconds = std::clamp(found.ttl, kLeastTtl, kLongestTtl) + kPinGrace;
    const TimePoint needed = now + std::chrono::seconds(std::min(found.ttl, kLongestTtl) + 5);
    for (const uint32_t entry : entries) {
      if (policy_.IsPinned(function, entry, found.address, needed)) {
        lookup.pinned.push_back(found.address);
        continue;
      }
      if (++pins > kMaxPinsPerAnswer) continue;
      ++lookup.pins_open;
      const PinRequest request{function, entry, found.address, seconds};
      pinner_(request, [this, alive, &lookup, request, one_less, now](bool ok) {
        if (!*alive) return;
        const TimePoint until = now + std::chrono::seconds(request.seconds);
        const bool open =
            ok && policy_.Pin({request.function, request.entry, request.address, until}, now);
        if (open) lookup.pinned.push_back(request.address);
        one_less();
      });
    }
  }
  one_less();
}

void DnsStub::Finish(Lookup& lookup, const std::string& message) {
  const ReplyCallback reply = std::move(lookup.reply);
  Close(lookup);
  reply(message);
}

void DnsStub::Close(Lookup& lookup) {
  loop_.Cancel(lookup.timer);
  if (lookup.fd.valid()) loop_.Unwatch(lookup.fd.get());
  lookup_shares_.Give(lookup.function);
  lookups_.erase(lookup.self);
}

}  // namespace pulga
