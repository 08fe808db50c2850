#include "api/client_connections.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>

namespace pulga {
namespace {

constexpr auto kShortestTick = std::chrono::milliseconds(10);
constexpr auto kLongestTick = std::chrono::seconds(1);

// How far a client is with a reply, as the kernel knows it; local clients count as keeping up.
void TellProgress(ClientConnection& connection, TimePoint now) {
  tcp_info info = {};
  socklen_t size = sizeof info;
  int queued = 0;
  if (connection.is_tcp) {
    getsockopt(connection.fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    ioctl(connection.fd, SIOCOUTQ, &queued);
  }
  connection.clock.OnReplyProgress(info.tcpi_bytes_acked, static_cast<uint64_t>(queued), now);
}

}  // namespace

Received ReceivedOn(const ClientConnection& connection) {
  tcp_info info = {};
  socklen_t size = sizeof info;
  if (connection.is_tcp) getsockopt(connection.fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  return {info.tcpi_bytes_received, info.tcpi_last_data_recv};
}

ClientConnection& ClientConnections::Add(const AcceptedConnection& accepted) {
  list_.push_back({accepted.fd.get(),
                   accepted.peer,
                   accepted.limit_key,
                   accepted.address.ss_family != AF_UNIX,
                   false,
                   false,
                   nullptr,
                   ConnectionClock(patience_, loop_.Now()),
                   {}});
  list_.back().self = std::prev(list_.end());
  ArmSweep();
  return list_.back();
}

void ClientConnections::ArmSweep() {
  if (sweep_timer_ != 0 || list_.empty()) return;
  const ConnectionPatience& p = patience_;
  const Duration shortest = std::min({p.head, p.idle, p.body, p.reply, p.linger});
  const Duration tick = std::clamp<Duration>(shortest / 4, kShortestTick, kLongestTick);
  sweep_timer_ = loop_.CallAfter(tick, [this] { Sweep(); });
}

void ClientConnections::Sweep() {
  sweep_timer_ = 0;
  const TimePoint now = loop_.Now();
  for (ClientConnection& connection : list_) {
    if (connection.clock.phase() == ConnectionClock::Phase::kReply) TellProgress(connection, now);
    if (connection.cut || !connection.clock.Expired(now)) continue;
    connection.cut = true;
    on_expired_(connection);
    shutdown(connection.fd, SHUT_RDWR);
  }
  ArmSweep();
}

}  // namespace pulga
