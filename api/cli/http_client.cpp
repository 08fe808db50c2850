#include "api/cli/http_client.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "api/cli/http_reply_parser.h"
#include "base/file_io.h"
#include "base/text.h"

namespace pulga::cli {
namespace {

constexpr size_t kBlock = 128 * 1024;

Result<UniqueFd> ConnectUnix(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return Error{Code::kInvalidArgument, 0, "unix:" + path + ": the path is longer than 107 bytes"};
  }
  memcpy(name.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return LastError("socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return LastError("connect to unix:" + path);
  }
  return fd;
}

Result<UniqueFd> ConnectTcp(const DaemonUrl& url) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string name = url.host + ":" + url.port;
  const int rc = getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found);
  if (rc != 0) return Error{Code::kNotFound, 0, "look up " + name + ": " + gai_strerror(rc)};
  Error last{Code::kIo, 0, "connect to " + name};
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    UniqueFd fd(socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.valid() && connect(fd.get(), one->ai_addr, one->ai_addrlen) == 0) {
      freeaddrinfo(found);
      return fd;
    }
    last = LastError("connect to " + name);
  }
  freeaddrinfo(found);
  return last;
}

// A peer that is gone without a word: unconfirmed bytes and, while we wait, probes tell.
void NoticeLoss(int fd, int seconds) {
  const int on = 1, idle = 15, interval = 5;
  const int millis = seconds * 1000;
  (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &millis, sizeof millis);
}

std::string HeadOf(const DaemonUrl& url, const ClientRequest& request) {
  const std::string host = url.unix_path.empty() ? url.host + ":" + url.port : "localhost";
  std::string head = request.method + " " + request.target + " HTTP/1.1\r\nHost: " + host +
                     "\r\nConnection: close\r\n";
  for (const auto& [name, value] : request.headers) head += name + ": " + value + "\r\n";
  if (request.body_fd >= 0 && !request.body_size) {
    head += "Transfer-Encoding: chunked\r\n";
  } else if (request.body_fd >= 0 || !request.body.empty() ||
             (request.method != "GET" && request.method != "DELETE" && request.method != "HEAD")) {
    const uint64_t size = request.body_fd >= 0 ? *request.body_size : request.body.size();
    head += "Content-Length: " + std::to_string(size) + "\r\n";
  }
  return head + "\r\n";
}

// The two directions of one exchange on a non-blocking socket.
class Conversation {
 public:
  Conversation(const DaemonUrl& url, const ClientRequest& request, UniqueFd fd,
               const BodySink& sink)
      : request_(request),
        cancel_fd_(url.cancel_fd),
        fd_(std::move(fd)),
        out_(HeadOf(url, request)),
        parser_(sink) {
    if (request.body_fd < 0) {
      out_ += request.body;
      body_done_ = true;
    }
  }

  Result<ClientReply> Run() {
    PULGA_RETURN_IF_ERROR(SetNonBlocking(fd_.get()));
    while (!parser_.done()) {
      const bool want_body = !body_done_ && out_.size() == sent_;
      pollfd fds[3] = {{fd_.get(), POLLIN, 0},
                       {want_body ? request_.body_fd : -1, POLLIN, 0},
                       {cancel_fd_, POLLIN, 0}};
      if (sent_ < out_.size()) fds[0].events |= POLLOUT;
      const bool sending = sent_ < out_.size();
      const int patience =
          sending && request_.stall_seconds > 0 ? request_.stall_seconds * 1000 : -1;
      const int ready = poll(fds, 3, patience);
      if (ready < 0) {
        if (errno == EINTR) continue;
        return LastError("poll");
      }
      if (ready == 0) return Error{Code::kTimeout, 0, "the connection stands still"};
      if (fds[2].revents != 0) return Error{Code::kUnavailable, 0, "interrupted"};
      if (fds[1].revents != 0) PULGA_RETURN_IF_ERROR(ReadBody());
      if ((fds[0].revents & POLLOUT) != 0) SendSome();
      if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) PULGA_RETURN_IF_ERROR(Receive());
    }
    return std::move(parser_.reply());
  }

 private:
  Status ReadBody() {
    if (!request_.body_size.has_value()) return ReadChunk();
    out_.resize(kBlock);  // all of it is sent
    sent_ = out_.size();
    const ssize_t n = ReadBlock(&out_);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return OkStatus();
    if (n < 0) return LastError("read the request body");
    const uint64_t rest = *request_.body_size - body_sent_;
    if (n == 0 && rest > 0) {
      return Error{Code::kIo, 0, "the file became shorter while it was sent"};
    }
    const uint64_t taken = std::min(static_cast<uint64_t>(n), rest);
    body_sent_ += taken;
    body_done_ = taken == rest;
    out_.resize(taken);
    sent_ = 0;
    return OkStatus();
  }

  Status ReadChunk() {
    std::string block(kBlock, '\0');
    const ssize_t n = ReadBlock(&block);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return OkStatus();
    if (n < 0) return LastError("read the request body");
    block.resize(static_cast<size_t>(n));
    body_sent_ += block.size();
    body_done_ = n == 0;
    char size[24];
    snprintf(size, sizeof size, "%zx\r\n", block.size());
    out_ = size + block + "\r\n";
    sent_ = 0;
    return OkStatus();
  }

  ssize_t ReadBlock(std::string* block) {
    const auto& ranges = request_.body_ranges;
    if (ranges.empty()) return read(request_.body_fd, block->data(), block->size());
    if (range_ == ranges.size()) return 0;
    const FileRange& range = ranges[range_];
    const uint64_t size = std::min<uint64_t>(block->size(), range.size - range_sent_);
    const ssize_t n = pread(request_.body_fd, block->data(), size,
                            static_cast<off_t>(range.offset + range_sent_));
    if (n > 0) range_sent_ += static_cast<uint64_t>(n);
    if (range_sent_ == range.size) {
      ++range_;
      range_sent_ = 0;
    }
    return n;
  }

  // Without what waits here or in the socket.
  void TellProgress() {
    if (!request_.on_progress || body_sent_ == 0) return;
    int queued = 0;
    if (ioctl(fd_.get(), SIOCOUTQ, &queued) != 0) queued = 0;
    const uint64_t waiting = static_cast<uint64_t>(queued) + (out_.size() - sent_);
    request_.on_progress(body_sent_ - std::min(body_sent_, waiting));
  }

  // A failure to send is no error yet: the reply that explains it may be waiting.
  void SendSome() {
    const ssize_t n = send(fd_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (n >= 0) {
      sent_ += static_cast<size_t>(n);
      TellProgress();
    } else if (errno != EAGAIN && errno != EINTR) {
      sent_ = out_.size();
      body_done_ = true;
    }
  }

  Status Receive() {
    char buffer[64 * 1024];
    const ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n > 0) return parser_.Feed(std::string_view(buffer, static_cast<size_t>(n)));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return OkStatus();
    if (n < 0 && !parser_.has_head()) return LastError("receive the daemon's reply");
    return parser_.End();
  }

  const ClientRequest& request_;
  int cancel_fd_;
  UniqueFd fd_;
  std::string out_;
  size_t sent_ = 0;
  uint64_t body_sent_ = 0;
  size_t range_ = 0;  // of body_ranges, which is sent now
  uint64_t range_sent_ = 0;
  bool body_done_ = false;
  ReplyParser parser_;
};

}  // namespace

Result<UniqueFd> Connect(const DaemonUrl& url) {
  auto fd = url.unix_path.empty() ? ConnectTcp(url) : ConnectUnix(url.unix_path);
  if (fd.ok()) return fd;
  return Error{
      fd.error().code, fd.error().sys_errno,
      fd.error().message + ". Is the daemon running (pulga serve), and is PULGA_URL right?"};
}

Result<DaemonUrl> ParseDaemonUrl(const std::string& text) {
  DaemonUrl url;
  const Error bad{Code::kInvalidArgument, 0,
                  "\"" + Printable(text) +
                      "\" is no daemon's address: write http://HOST:PORT or "
                      "unix:/path/to.sock"};
  if (text.rfind("unix:/", 0) == 0) {
    url.unix_path = text.substr(5);
    url.base = "http://localhost";
    return url;
  }
  if (text.rfind("http://", 0) != 0) return bad;
  std::string rest = text.substr(7);
  while (!rest.empty() && rest.back() == '/') rest.pop_back();
  const size_t colon = rest.rfind(':');
  const size_t bracket = rest.rfind(']');
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    url.port = rest.substr(colon + 1);
    rest.resize(colon);
  } else {
    url.port = "80";
  }
  if (rest.size() > 2 && rest.front() == '[' && rest.back() == ']')
    rest = rest.substr(1, rest.size() - 2);
  if (rest.empty() || rest.find('/') != std::string::npos || !ParseUint(url.port, 65535))
    return bad;
  url.host = rest;
  const bool v6 = rest.find(':') != std::string::npos;
  url.base = "http://" + (v6 ? "[" + rest + "]" : rest) + ":" + url.port;
  return url;
}

Result<ClientReply> Exchange(const DaemonUrl& url, const ClientRequest& request,
                             const BodySink& sink) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, Connect(url));
  if (request.stall_seconds > 0) NoticeLoss(fd.get(), request.stall_seconds);
  Conversation conversation(url, request, std::move(fd), sink);
  return conversation.Run();
}

Status CheckReachable(const DaemonUrl& url) { return Status(Connect(url)); }

}  // namespace pulga::cli
