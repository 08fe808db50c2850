#include "bench/http_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>

#include "base/text.h"
#include "bench/stats.h"

namespace pulga::bench {

Result<HttpConnection> HttpConnection::Connect(uint16_t port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return LastError("socket");
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
    return LastError("connect to 127.0.0.1:" + std::to_string(port));
  }
  const int on = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return HttpConnection(std::move(fd));
}

std::string Request(const std::string& path, size_t body_bytes) {
  const std::string head = " " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  if (body_bytes == 0) return "GET" + head + "\r\n";
  return "POST" + head + "Content-Length: " + std::to_string(body_bytes) + "\r\n\r\n" +
         std::string(body_bytes, 'x');
}

Status HttpConnection::Send(const std::string& request) {
  in_.clear();
  first_byte_ = 0;
  if (send(fd_.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return LastError("send");
  }
  return OkStatus();
}

Result<bool> HttpConnection::ReadSome() {
  char buffer[65536];
  const ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n < 0) return LastError("recv");
  if (n == 0) return Error{Code::kIo, 0, "the server closed the connection"};
  in_.append(buffer, static_cast<size_t>(n));
  return Parse();
}

Result<bool> HttpConnection::Parse() {
  const size_t head_end = in_.find("\r\n\r\n");
  if (head_end == std::string::npos) return false;
  status_ = atoi(in_.c_str() + 9);
  const size_t body = head_end + 4;
  if (in_.size() > body && first_byte_ == 0) first_byte_ = NowMicros();
  const std::string head = ToLower(std::string_view(in_).substr(0, head_end));
  const size_t length_at = head.find("\r\ncontent-length:");
  if (length_at != std::string::npos) {
    const auto length = static_cast<size_t>(atol(head.c_str() + length_at + 17));
    return in_.size() >= body + length;
  }
  if (head.find("\r\ntransfer-encoding: chunked") == std::string::npos) {
    return Error{Code::kIo, 0, "a reply without framing"};
  }
  const size_t last = in_.rfind("\r\n0\r\n");
  const bool at_start = in_.compare(body, 3, "0\r\n") == 0;
  return (at_start || (last != std::string::npos && last >= head_end)) && in_.ends_with("\r\n\r\n");
}

Status HttpConnection::Exchange(const std::string& request) {
  PULGA_RETURN_IF_ERROR(Send(request));
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const bool complete, ReadSome());
    if (complete) return OkStatus();
  }
}

}  // namespace pulga::bench
