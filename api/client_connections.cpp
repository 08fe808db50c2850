#include "api/client_connections.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pulga {
namespace {

constexpr auto kShortestTick = std::chrono::milliseconds(10);
constexpr auto kLongestTick = std::chrono::seconds(1);
// A client may take this long for a head before it is among those that can be spared.
constexpr auto kHeadGrace = std::chrono::seconds(1);
// The kernel counts times of reception in ticks.
constexpr auto kTickOfKernel = std::chrono::milliseconds(20);
constexpr size_t kMostLookedAt = 32;

using Phase = ConnectionClock::Phase;

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

bool HasUnread(int fd) {
  char byte;
  return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

bool WaitsForHead(const ClientConnection& connection) {
  const Phase phase = connection.clock.phase();
  return !connection.cut && (phase == Phase::kHead || phase == Phase::kIdle);
}

// Between two requests, or before the first; not while one comes in, unless that takes long and
// everybody is short of room.
bool CanBeSpared(const ClientConnection& connection, NewCaller::Full full, TimePoint now) {
  if (HasUnread(connection.fd)) return false;
  const Duration age = now - connection.clock.entered();
  const bool begun = connection.exchange != nullptr;
  const Received received = ReceivedOn(connection);
  if (!begun && connection.clock.phase() == Phase::kIdle &&
      (!connection.is_tcp || std::chrono::milliseconds(received.last_ms) + kTickOfKernel >= age)) {
    return true;
  }
  if (age < kHeadGrace) return false;
  return full != NewCaller::Full::kOwnShare || (!begun && received.bytes == 0);
}

// Body bytes are read as long as there is room for them. So those that stay unread, or the end,
// will stay so: the library's buffer is full of what it can not use, like an endless chunk
// extension.
bool LeavesUnread(const ClientConnection& connection) {
  if (connection.clock.phase() != Phase::kBody) return false;
  pollfd ready = {connection.fd, POLLIN | POLLRDHUP, 0};
  return poll(&ready, 1, 0) > 0;
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
                   accepted.from_function,
                   false,
                   false,
                   std::nullopt,
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
    if (connection.cut) continue;
    const uint64_t body = connection.clock.body_bytes();
    const bool stuck = LeavesUnread(connection);
    const bool still_stuck = stuck && connection.stuck_at == body;
    connection.stuck_at = stuck ? std::optional(body) : std::nullopt;
    if (!still_stuck && !connection.clock.Expired(now)) continue;
    on_expired_(connection);
    Cut(connection);
  }
  ArmSweep();
}

void ClientConnections::Cut(ClientConnection& connection) {
  connection.cut = true;
  shutdown(connection.fd, SHUT_RDWR);
}

bool ClientConnections::Evict(const NewCaller& caller) {
  std::unordered_map<std::string_view, size_t> held;
  for (const ClientConnection& connection : list_) ++held[connection.limit_key];
  const size_t own = held[caller.limit_key];
  std::vector<ClientConnection*> candidates;
  for (ClientConnection& connection : list_) {
    const bool same = connection.limit_key == caller.limit_key;
    const bool shared =
        caller.full == NewCaller::Full::kFunctions ? connection.from_function : connection.is_tcp;
    const bool bigger =
        caller.full != NewCaller::Full::kOwnShare && shared && held[connection.limit_key] > own;
    if ((same || bigger) && WaitsForHead(connection)) candidates.push_back(&connection);
  }
  const auto looked_at =
      candidates.begin() + static_cast<ptrdiff_t>(std::min(candidates.size(), kMostLookedAt));
  const auto sooner = [&](const ClientConnection* a, const ClientConnection* b) {
    const size_t of_a = held[a->limit_key], of_b = held[b->limit_key];
    return of_a != of_b ? of_a > of_b : a->clock.entered() < b->clock.entered();
  };
  std::partial_sort(candidates.begin(), looked_at, candidates.end(), sooner);
  const TimePoint now = loop_.Now();
  const auto found = std::find_if(candidates.begin(), looked_at, [&](ClientConnection* candidate) {
    return CanBeSpared(*candidate, caller.full, now);
  });
  if (found == looked_at) return false;
  on_expired_(**found);
  Cut(**found);
  return true;
}

}  // namespace pulga
