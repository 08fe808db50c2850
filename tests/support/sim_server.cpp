#include "tests/support/sim_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace pulga::testing {

SimServer::~SimServer() {
  for (const auto& [id, connection] : connections_) loop_.Unwatch(connection.fd.get());
}

UniqueFd SimServer::Connect() {
  std::array<int, 2> ends{};
  constexpr int kType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  PULGA_CHECK(socketpair(AF_UNIX, kType, 0, ends.data()) == 0);
  const ConnectionId id = ++last_;
  connections_[id].fd = UniqueFd(ends[0]);
  PULGA_CHECK(loop_.Watch(ends[0], EPOLLIN, [this, id](uint32_t) { OnReadable(id); }).ok());
  return UniqueFd(ends[1]);
}

void SimServer::OnReadable(ConnectionId id) {
  Connection& connection = connections_.at(id);
  std::array<char, 4096> bytes;
  const ssize_t size = recv(connection.fd.get(), bytes.data(), bytes.size(), 0);
  if (size <= 0) {
    loop_.Unwatch(connection.fd.get());
    connections_.erase(id);
    return;
  }
  connection.head.append(bytes.data(), static_cast<size_t>(size));
  if (!connection.head.ends_with("\r\n\r\n")) return;
  connection.head.clear();
  connection.asked = true;
  on_request_(id);
}

bool SimServer::Reply(ConnectionId connection, std::string_view body) {
  const auto it = connections_.find(connection);
  if (it == connections_.end()) return false;
  it->second.asked = false;
  const std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
                            "\r\n\r\n" + std::string(body);
  return send(it->second.fd.get(), reply.data(), reply.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(reply.size());
}

uint32_t SimServer::OpenRequests() const {
  return static_cast<uint32_t>(
      std::count_if(connections_.begin(), connections_.end(), [](const auto& entry) {
        if (!entry.second.asked) return false;
        char byte = 0;
        return recv(entry.second.fd.get(), &byte, 1, MSG_PEEK) != 0;  // 0: it has hung up
      }));
}

}  // namespace pulga::testing
