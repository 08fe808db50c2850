#include "net/tcp_relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr ShareLedger::Limits kMaxLinks = {2048, 512, 256};
constexpr int kAcceptsPerTurn = 32;
constexpr size_t kBufferBytes = 64 * 1024;
// Who holds more waiting bytes than this, or all together, gets on in small steps.
constexpr size_t kMaxHeld = 16 << 20;
constexpr size_t kMaxHeldPerFunction = 1 << 20;
constexpr size_t kSmallStep = 4096;
// The kernel's memory for sockets is the router's (LimitsOf in sandbox/net_child.cpp), which no
// function alone may fill: its first connections get much of it, the others little.
constexpr size_t kLargeLinksPerFunction = 8;
constexpr int kLargeSocketBuffer = 256 * 1024;
constexpr int kSmallSocketBuffer = 32 * 1024;
constexpr Duration kConnectPatience = std::chrono::seconds(30);

// A function that closed its half-open connection and is gone answers no probe; its peer may be
// slow.
constexpr int kInnerProbeSeconds = 30;
constexpr int kOuterProbeSeconds = 600;

void Set(int fd, int level, int option, int value) {
  (void)setsockopt(fd, level, option, &value, sizeof value);
}

// The next close sends RST: nothing of this connection ever arrived anywhere.
void CloseWithReset(UniqueFd& fd) {
  const linger at_once = {1, 0};
  (void)setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  fd.Reset();
}

}  // namespace

TcpRelay::TcpRelay(EventLoop& loop, const EgressPolicy& policy, const HostRoutes& routes,
                   std::function<void(Ipv4)> refused)
    : loop_(loop),
      policy_(policy),
      routes_(routes),
      refused_(std::move(refused)),
      shares_(kMaxLinks) {}

TcpRelay::~TcpRelay() {
  while (!links_.empty()) Close(*links_.front());
  if (listener_.valid()) loop_.Unwatch(listener_.get());
}

Status TcpRelay::Serve(UniqueFd listener) {
  listener_ = std::move(listener);
  return loop_.Watch(listener_.get(), EPOLLIN, [this](uint32_t) { OnConnection(); });
}

void TcpRelay::OnConnection() {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_in from = {};
    socklen_t size = sizeof from;
    UniqueFd fd(PULGA_SYS(accept4, listener_.get(), reinterpret_cast<sockaddr*>(&from), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) return;
    // With tproxy the local name of the connection is where the function wanted to go.
    sockaddr_in to = {};
    size = sizeof to;
    if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&to), &size) != 0) continue;
    const Ipv4 function{ntohl(from.sin_addr.s_addr)};
    Open(std::move(fd), function,
         {IpProtocol::kTcp, {ntohl(to.sin_addr.s_addr)}, ntohs(to.sin_port)});
  }
}

void TcpRelay::Open(UniqueFd fd, Ipv4 function, const Destination& to) {
  if (!policy_.MayConnect(function, to, routes_.Find(to.address), loop_.Now())) {
    return CloseWithReset(fd);
  }
  const Holder holder = policy_.HolderAt(function);
  if (!shares_.HasRoom(holder)) {
    CloseWithReset(fd);
    return refused_(function);
  }
  UniqueFd outer(PULGA_SYS(socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(to.address.value);
  name.sin_port = htons(to.port);
  if (!outer.valid() || (PULGA_SYS(connect, outer.get(), reinterpret_cast<const sockaddr*>(&name),
                                   sizeof name) != 0 &&
                         errno != EINPROGRESS)) {
    return CloseWithReset(fd);
  }
  Set(fd.get(), IPPROTO_TCP, TCP_KEEPIDLE, kInnerProbeSeconds);
  Set(outer.get(), IPPROTO_TCP, TCP_KEEPIDLE, kOuterProbeSeconds);
  const bool large = shares_.HeldBy(holder.version) < kLargeLinksPerFunction;
  for (const int socket : {fd.get(), outer.get()}) {
    Set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    Set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    for (const int which : {SO_SNDBUF, SO_RCVBUF}) {
      Set(socket, SOL_SOCKET, which, large ? kLargeSocketBuffer : kSmallSocketBuffer);
    }
  }
  links_.push_back(std::make_unique<Link>());
  Link& link = *links_.back();
  link.self = std::prev(links_.end());
  link.function = holder;
  link.inner.fd = std::move(fd);
  link.outer.fd = std::move(outer);
  shares_.Take(holder);
  link.timer = loop_.CallAfter(kConnectPatience, [this, &link] {
    link.timer = 0;
    Reset(link);
  });
  if (!WatchFor(link, link.outer, EPOLLOUT)) Reset(link);
}

void TcpRelay::OnOuterConnected(Link& link) {
  int failed = 0;
  socklen_t size = sizeof failed;
  getsockopt(link.outer.fd.get(), SOL_SOCKET, SO_ERROR, &failed, &size);
  if (failed != 0) return Reset(link);
  link.connected = true;
  loop_.Cancel(std::exchange(link.timer, 0));
  Rearm(link);
}

void TcpRelay::OnReady(Link& link, Side& side, uint32_t events) {
  if (!link.connected) return OnOuterConnected(link);
  Side& other = &side == &link.inner ? link.outer : link.inner;
  if ((events & EPOLLERR) != 0) Fail(link, side);
  if ((events & EPOLLOUT) != 0) Flush(link, side);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !side.ended && !other.failed &&
      other.unsent.empty() && !Copy(link, side, other)) {
    return Reset(link);
  }
  for (const auto& [from, to] :
       {std::pair(&link.inner, &link.outer), std::pair(&link.outer, &link.inner)}) {
    if (from->failed && (from->ended || to->failed) && to->unsent.empty()) return Reset(link);
    if (!from->ended || from->told || !to->unsent.empty()) continue;
    shutdown(to->fd.get(), SHUT_WR);
    from->told = true;
  }
  if (link.inner.told && link.outer.told) return Close(link);
  Rearm(link);
}

// False: the connection is broken.
bool TcpRelay::Copy(const Link& link, Side& from, Side& to) {
  static char buffer[kBufferBytes];
  const auto held = held_by_.find(link.function.version);
  const bool much =
      held_ > kMaxHeld || (held != held_by_.end() && held->second > kMaxHeldPerFunction);
  const ssize_t n = recv(from.fd.get(), buffer, much ? kSmallStep : sizeof buffer, 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) {
    from.ended = true;
    return !from.failed;
  }
  to.unsent.assign(buffer, static_cast<size_t>(n));
  Flush(link, to);
  if (!to.unsent.empty()) Hold(link, to, static_cast<size_t>(n));
  return true;
}

// Instead of what it held before.
void TcpRelay::Hold(const Link& link, Side& side, size_t size) {
  const size_t before = std::exchange(side.held, size);
  if (before == size) return;
  held_ += size - before;
  size_t& held = held_by_[link.function.version];
  held += size - before;
  if (held == 0) held_by_.erase(link.function.version);
}

void TcpRelay::Flush(const Link& link, Side& side) {
  if (side.unsent.empty()) return;
  const ssize_t n = send(side.fd.get(), side.unsent.data(), side.unsent.size(), MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) return Fail(link, side);
  side.unsent.erase(0, static_cast<size_t>(n));
  if (!side.unsent.empty()) return;
  std::string().swap(side.unsent);
  Hold(link, side, 0);
}

// A server may answer and close while it is still written to: its answer arrives all the same.
void TcpRelay::Fail(const Link& link, Side& side) {
  side.failed = true;
  std::string().swap(side.unsent);
  Hold(link, side, 0);
}

// A side that was told the end, and of which nothing is wanted, is not watched at all: its hang-up
// would be reported for ever.
bool TcpRelay::WatchFor(Link& link, Side& side, uint32_t wanted) {
  if (wanted == side.watched) return true;
  const uint32_t before = std::exchange(side.watched, wanted);
  const int fd = side.fd.get();
  if (wanted == 0) {
    loop_.Unwatch(fd);
    return true;
  }
  if (before != 0) return loop_.Modify(fd, wanted).ok();
  const auto ready = [this, &link, &side](uint32_t events) { OnReady(link, side, events); };
  return loop_.Watch(fd, wanted, ready).ok();
}

void TcpRelay::Rearm(Link& link) {
  for (const auto& [side, other] :
       {std::pair(&link.inner, &link.outer), std::pair(&link.outer, &link.inner)}) {
    const bool reads = !side->ended && other->unsent.empty() && !other->failed;
    uint32_t wanted = (reads ? EPOLLIN : 0U) | (side->unsent.empty() ? 0U : EPOLLOUT);
    // Its reset is always of interest, or a half-open connection would be held for ever.
    if (wanted == 0 && !other->told && !side->failed) wanted = EPOLLERR;
    if (!WatchFor(link, *side, wanted)) return Reset(link);
  }
}

void TcpRelay::Reset(Link& link) {
  for (Side* side : {&link.inner, &link.outer}) {
    (void)WatchFor(link, *side, 0);
    CloseWithReset(side->fd);
  }
  Close(link);
}

void TcpRelay::Close(Link& link) {
  loop_.Cancel(link.timer);
  for (Side* side : {&link.inner, &link.outer}) {
    (void)WatchFor(link, *side, 0);
    Hold(link, *side, 0);
  }
  shares_.Give(link.function);
  links_.erase(link.self);
}

void TcpRelay::Drop(Ipv4 address) {
  for (auto at = links_.begin(); at != links_.end();) {
    Link& link = **at++;
    if (link.function.address == address) Reset(link);
  }
}

}  // namespace pulga
