#include "net/udp_relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <optional>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr ShareLedger::Limits kMaxFlows = {1024, 256, 128};
constexpr int kDatagramsPerTurn = 64;
constexpr Duration kSilence = std::chrono::seconds(60);
constexpr Duration kSweepInterval = std::chrono::seconds(10);

char g_buffer[65536];

sockaddr_in NameOf(const UdpEnd& end) {
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(end.address.value);
  name.sin_port = htons(end.port);
  return name;
}

UdpEnd EndOf(const sockaddr_in& name) {
  return {{ntohl(name.sin_addr.s_addr)}, ntohs(name.sin_port)};
}

std::optional<UdpEnd> OriginalDestination(msghdr& message) {
  for (cmsghdr* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level != SOL_IP || at->cmsg_type != IP_ORIGDSTADDR) continue;
    sockaddr_in name;
    memcpy(&name, CMSG_DATA(at), sizeof name);
    return EndOf(name);
  }
  return std::nullopt;
}

}  // namespace

UdpRelay::UdpRelay(EventLoop& loop, const EgressPolicy& policy, const HostRoutes& routes,
                   std::function<void(Ipv4)> refused)
    : loop_(loop),
      policy_(policy),
      routes_(routes),
      refused_(std::move(refused)),
      shares_(kMaxFlows) {}

UdpRelay::~UdpRelay() {
  loop_.Cancel(sweep_);
  while (!flows_.empty()) Erase(flows_.begin());
  if (socket_.valid()) loop_.Unwatch(socket_.get());
}

Status UdpRelay::Serve(UniqueFd socket, UniqueFd reply) {
  socket_ = std::move(socket);
  reply_ = std::move(reply);
  return loop_.Watch(socket_.get(), EPOLLIN, [this](uint32_t) { OnDatagram(); });
}

void UdpRelay::OnDatagram() {
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    sockaddr_in from = {};
    iovec data = {g_buffer, sizeof g_buffer};
    alignas(cmsghdr) char control[256];
    msghdr message = {};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
    if (n < 0) return;
    if (const auto to = OriginalDestination(message)) {
      Forward({EndOf(from), *to}, g_buffer, static_cast<size_t>(n));
    }
  }
}

void UdpRelay::Forward(const FlowKey& key, const char* data, size_t size) {
  const auto& [from, to] = key;
  const Destination destination{IpProtocol::kUdp, to.address, to.port};
  if (!policy_.MayConnect(from.address, destination, routes_.Find(to.address), loop_.Now())) return;
  Flow* flow = FindOrOpen(key);
  if (flow == nullptr) return;
  flow->last = loop_.Now();
  (void)send(flow->fd.get(), data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

UdpRelay::Flow* UdpRelay::FindOrOpen(const FlowKey& key) {
  const auto found = flows_.find(key);
  if (found != flows_.end()) return &found->second;
  Flow flow;
  flow.function = policy_.HolderAt(key.first.address);
  if (!shares_.HasRoom(flow.function)) {
    refused_(key.first.address);
    return nullptr;
  }
  flow.fd.Reset(PULGA_SYS(socket, AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr_in name = NameOf(key.second);
  if (!flow.fd.valid() || PULGA_SYS(connect, flow.fd.get(),
                                    reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return nullptr;
  }
  const auto answer = [this, key](uint32_t) { OnAnswer(key); };
  if (!loop_.Watch(flow.fd.get(), EPOLLIN, answer).ok()) return nullptr;
  shares_.Take(flow.function);
  if (sweep_ == 0) sweep_ = loop_.CallAfter(kSweepInterval, [this] { Sweep(); });
  return &flows_.emplace(key, std::move(flow)).first->second;
}

void UdpRelay::OnAnswer(const FlowKey& key) {
  const auto found = flows_.find(key);
  if (found == flows_.end()) return;
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    const ssize_t n = recv(found->second.fd.get(), g_buffer, kMaxUdpPayload, MSG_DONTWAIT);
    if (n < 0) return;  // nobody listens there, or nothing more for now
    found->second.last = loop_.Now();
    const std::string packet =
        MakeUdpPacket(key.second, key.first, {g_buffer, static_cast<size_t>(n)});
    const sockaddr_in name = NameOf({key.first.address, 0});
    (void)sendto(reply_.get(), packet.data(), packet.size(), MSG_DONTWAIT,
                 reinterpret_cast<const sockaddr*>(&name), sizeof name);
  }
}

std::map<UdpRelay::FlowKey, UdpRelay::Flow>::iterator UdpRelay::Erase(
    std::map<FlowKey, Flow>::iterator at) {
  loop_.Unwatch(at->second.fd.get());
  shares_.Give(at->second.function);
  return flows_.erase(at);
}

void UdpRelay::Sweep() {
  sweep_ = 0;
  for (auto at = flows_.begin(); at != flows_.end();) {
    at = loop_.Now() - at->second.last > kSilence ? Erase(at) : std::next(at);
  }
  if (!flows_.empty()) sweep_ = loop_.CallAfter(kSweepInterval, [this] { Sweep(); });
}

void UdpRelay::Drop(Ipv4 address) {
  for (auto at = flows_.begin(); at != flows_.end();) {
    at = at->first.first.address == address ? Erase(at) : std::next(at);
  }
}

}  // namespace pulga
