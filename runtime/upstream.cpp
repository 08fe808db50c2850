#include "runtime/upstream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr Duration kFirstProbeDelay = std::chrono::microseconds(500);
constexpr Duration kLastProbeDelay = std::chrono::milliseconds(20);
constexpr uint16_t kSocketsPerRequest = 4;
constexpr uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

bool IsConnected(int fd) {
  sockaddr_storage peer = {};
  socklen_t size = sizeof peer;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

// Already connected sockets are welcome: that is how a test stands in for a namespace.
Status ConnectLoopback(int fd, uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto* raw = reinterpret_cast<const sockaddr*>(&address);
  if (PULGA_SYS(connect, fd, raw, sizeof address) != 0 && errno != EINPROGRESS &&
      errno != EISCONN) {
    const Error refused = LastError("connect to 127.0.0.1:" + std::to_string(port));
    if (!IsConnected(fd)) return refused;
  }
  const int one = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return OkStatus();
}

int SocketError(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

}  // namespace

UpstreamConnection::UpstreamConnection(EventLoop& loop, Notifier& notifier, UniqueFd fd)
    : loop_(loop), notifier_(notifier), fd_(std::move(fd)) {}

UpstreamConnection::~UpstreamConnection() { loop_.Unwatch(fd_.get()); }

Status UpstreamConnection::Connect(uint16_t port) {
  PULGA_RETURN_IF_ERROR(ConnectLoopback(fd_.get(), port));
  return loop_.Watch(fd_.get(), kEdges, [this, &notifier = notifier_](uint32_t events) {
    const Notifier::Turn turn(notifier);
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) peer_closed = true;
    if (user != nullptr) {
      user->OnUpstream(events);
    } else if ((events & ~uint32_t{EPOLLOUT}) != 0 && home != nullptr) {
      home->DropIdle(this);  // closed by the server, or bytes nobody asked for
    }
  });
}

Upstream::Upstream(EventLoop& loop, Notifier& notifier, uint16_t port, uint32_t max_idle,
                   std::function<void(uint16_t)> want_sockets)
    : loop_(loop),
      notifier_(notifier),
      port_(port),
      max_idle_(max_idle),
      want_sockets_(std::move(want_sockets)) {}

Upstream::~Upstream() { Close(); }

void Upstream::Close() {
  idle_.clear();
  sockets_.clear();
  loop_.Cancel(std::exchange(probe_timer_, 0));
  if (probe_watched_) loop_.Unwatch(probe_.get());
  probe_watched_ = false;
  probe_.Reset();
  ready_ = nullptr;
}

void Upstream::AddSockets(std::vector<UniqueFd> sockets) {
  asked_ -= std::min<uint32_t>(asked_, static_cast<uint32_t>(sockets.size()));
  for (UniqueFd& socket : sockets) sockets_.push_back(std::move(socket));
  if (ready_ && !probe_.valid() && !sockets_.empty()) ConnectProbe();
  while (!waiting_.empty() && !sockets_.empty()) {
    UpstreamUser* user = waiting_.front();
    std::unique_ptr<UpstreamConnection> connection = Fresh(user);
    if (connection == nullptr) break;
    waiting_.pop_front();
    user->OnConnection(std::move(connection));
  }
}

void Upstream::Probe(std::function<void()> ready) {
  ready_ = std::move(ready);
  probe_delay_ = kFirstProbeDelay;
  if (sockets_.empty()) {
    asked_ += kSocketsPerRequest;
    want_sockets_(kSocketsPerRequest);
  } else {
    ConnectProbe();
  }
}

void Upstream::ConnectProbe() {
  if (!probe_.valid()) {
    probe_ = std::move(sockets_.back());
    sockets_.pop_back();
  }
  if (!ConnectLoopback(probe_.get(), port_).ok()) return RetryProbe();
  const Status watched =
      loop_.Watch(probe_.get(), EPOLLOUT | EPOLLET, [this, &notifier = notifier_](uint32_t events) {
        const Notifier::Turn turn(notifier);
        OnProbe(events);
      });
  if (!watched.ok()) return RetryProbe();
  probe_watched_ = true;
}

void Upstream::OnProbe(uint32_t events) {
  loop_.Unwatch(probe_.get());
  probe_watched_ = false;
  if (SocketError(probe_.get()) == 0 && (events & EPOLLHUP) == 0) {
    ProbeSucceeded();
  } else {
    RetryProbe();  // Linux lets a refused socket connect again
  }
}

void Upstream::RetryProbe() {
  probe_timer_ = loop_.CallAfter(probe_delay_, [this] {
    const Notifier::Turn turn(notifier_);
    probe_timer_ = 0;
    ConnectProbe();
  });
  probe_delay_ = std::min(probe_delay_ * 2, kLastProbeDelay);
}

void Upstream::ProbeSucceeded() {
  auto first = std::make_unique<UpstreamConnection>(loop_, notifier_, std::move(probe_));
  if (first->Connect(port_).ok()) {
    Return(std::move(first));
    idle_.back()->reuse = Reuse::kFresh;
  }
  if (sockets_.empty() && asked_ == 0) {
    asked_ = kSocketsPerRequest;
    want_sockets_(kSocketsPerRequest);
  }
  const std::function<void()> ready = std::exchange(ready_, nullptr);
  if (ready) ready();
}

std::unique_ptr<UpstreamConnection> Upstream::Fresh(UpstreamUser* user) {
  UniqueFd fd = std::move(sockets_.back());
  sockets_.pop_back();
  auto connection = std::make_unique<UpstreamConnection>(loop_, notifier_, std::move(fd));
  if (!connection->Connect(port_).ok()) connection->peer_closed = true;
  connection->user = user;
  return connection;
}

std::unique_ptr<UpstreamConnection> Upstream::Acquire(UpstreamUser* user, Want want) {
  if (want == Want::kAny && !idle_.empty()) {
    std::unique_ptr<UpstreamConnection> connection = std::move(idle_.back());
    idle_.pop_back();
    connection->user = user;
    return connection;
  }
  if (sockets_.size() + asked_ <= waiting_.size() + 1) {
    asked_ += kSocketsPerRequest;
    want_sockets_(kSocketsPerRequest);
  }
  if (!sockets_.empty() && waiting_.empty()) return Fresh(user);
  waiting_.push_back(user);
  return nullptr;
}

void Upstream::Cancel(UpstreamUser* user) { std::erase(waiting_, user); }

void Upstream::Return(std::unique_ptr<UpstreamConnection> connection) {
  if (idle_.size() >= max_idle_ || connection->peer_closed) return;
  connection->user = nullptr;
  connection->reuse = Reuse::kReused;
  connection->home = this;
  idle_.push_back(std::move(connection));
}

void Upstream::DropIdle(UpstreamConnection* connection) {
  std::erase_if(idle_, [&](const auto& idle) { return idle.get() == connection; });
}

SendResult SendTwo(int fd, std::string_view first, std::string_view second) {
  iovec parts[2] = {{const_cast<char*>(first.data()), first.size()},
                    {const_cast<char*>(second.data()), second.size()}};
  msghdr message = {};
  message.msg_iov = first.empty() ? parts + 1 : parts;
  message.msg_iovlen = first.empty() || second.empty() ? 1 : 2;
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  ssize_t n;
  do {
    n = second.empty() ? send(fd, first.data(), first.size(), kFlags)
                       : sendmsg(fd, &message, kFlags);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return {SendResult::State::kSent, static_cast<size_t>(n)};
  if (errno == EAGAIN) return {SendResult::State::kBlocked, 0};
  return {SendResult::State::kBroken, 0};
}

}  // namespace pulga
