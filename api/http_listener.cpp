#include "api/http_listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr int kAcceptsPerTurn = 16;
constexpr auto kPause = std::chrono::milliseconds(100);
constexpr char kLocalKey[] = "unix";

Result<UniqueFd> ListenTcp(const ListenAddress& address) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  if (getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found) != 0 || found == nullptr) {
    return Error{Code::kInvalidArgument, 0, "not a numeric address"};
  }
  UniqueFd fd(PULGA_SYS(socket, found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int one = 1;
  int bound = -1;
  if (fd.valid()) {
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (found->ai_family == AF_INET6)
      setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    bound = PULGA_SYS(bind, fd.get(), found->ai_addr, found->ai_addrlen);
  }
  const int saved = errno;
  freeaddrinfo(found);
  if (bound != 0) return ErrnoError("bind", saved);
  if (PULGA_SYS(listen, fd.get(), SOMAXCONN) != 0) return LastError("listen");
  return fd;
}

// A socket file nobody listens on any more is left over from a crash.
void RemoveStaleSocket(const sockaddr_un& name) {
  struct stat st = {};
  if (lstat(name.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) return;
  const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int rc = connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name);
  if (rc != 0 && errno == ECONNREFUSED) unlink(name.sun_path);
}

Result<UniqueFd> ListenUnix(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return Error{Code::kInvalidArgument, 0, "the path is longer than 107 bytes"};
  }
  memcpy(name.sun_path, path.data(), path.size());
  RemoveStaleSocket(name);
  UniqueFd fd(PULGA_SYS(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return LastError("socket");
  const mode_t before = umask(0117);  // 0660 from its first moment
  const int rc = PULGA_SYS(bind, fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name);
  const int saved = errno;
  umask(before);
  if (rc != 0) return ErrnoError("bind", saved);
  if (PULGA_SYS(listen, fd.get(), SOMAXCONN) != 0) return LastError("listen");
  return fd;
}

std::string AddressKey(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return std::string(reinterpret_cast<const char*>(&v4.sin_addr), sizeof v4.sin_addr);
  }
  if (address.ss_family == AF_INET6) {
    // One subscriber usually holds a whole /64.
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    return std::string(reinterpret_cast<const char*>(&v6.sin6_addr), 8);
  }
  return kLocalKey;
}

std::string AddressText(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  return kLocalKey;
}

}  // namespace

bool ListenAddress::is_loopback() const {
  return is_unix() || host == "::1" || host.rfind("127.", 0) == 0;
}

Result<ListenAddress> ParseListenAddress(const std::string& text) {
  const Error bad{Code::kInvalidArgument, 0,
                  "\"" + Printable(text) +
                      "\" is no address to listen on: write 127.0.0.1:8080, "
                      "[::1]:8080, :8080 or unix:/path/to.sock"};
  ListenAddress out;
  if (text.rfind("unix:", 0) == 0) {
    out.unix_path = text.substr(5);
    if (out.unix_path.empty() || out.unix_path[0] != '/') return bad;
    return out;
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return bad;
  const auto port = ParseUint(std::string_view(text).substr(colon + 1), 65535);
  std::string host = text.substr(0, colon);
  if (host.empty()) host = "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  char buffer[sizeof(in6_addr)];
  const int family = host.find(':') == std::string::npos ? AF_INET : AF_INET6;
  if (!port || inet_pton(family, host.c_str(), buffer) != 1) return bad;
  out.host = host;
  out.port = static_cast<uint16_t>(*port);
  return out;
}

HttpListener::HttpListener(EventLoop& loop, ConnectionLimits limits, Callbacks callbacks)
    : loop_(loop), limits_(limits), callbacks_(std::move(callbacks)) {
  reserve_.Reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

HttpListener::~HttpListener() { StopAccepting(); }

Result<std::unique_ptr<HttpListener>> HttpListener::Create(
    EventLoop& loop, const std::vector<ListenAddress>& addresses, ConnectionLimits limits,
    Callbacks callbacks) {
  std::unique_ptr<HttpListener> out(new HttpListener(loop, limits, std::move(callbacks)));
  for (const ListenAddress& address : addresses) PULGA_RETURN_IF_ERROR(out->Listen(address));
  return out;
}

Status HttpListener::Listen(const ListenAddress& address) {
  const std::string name = address.is_unix() ? "unix:" + address.unix_path
                                             : address.host + ":" + std::to_string(address.port);
  auto fd = address.is_unix() ? ListenUnix(address.unix_path) : ListenTcp(address);
  if (!fd.ok()) return Prefix("listen on " + name, fd.error());
  Socket socket{std::move(*fd), address.unix_path};
  const int number = socket.fd.get();
  sockaddr_storage bound = {};
  socklen_t size = sizeof bound;
  if (!address.is_unix()) getsockname(number, reinterpret_cast<sockaddr*>(&bound), &size);
  bound_.push_back(address.is_unix() ? name : AddressText(bound));
  sockets_.push_back(std::move(socket));
  return Watch(number);
}

Status HttpListener::Watch(int fd) {
  return loop_.Watch(fd, EPOLLIN, [this, fd](uint32_t) { AcceptSome(fd); });
}

void HttpListener::AcceptSome(int listen_fd) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    if (!AcceptOne(listen_fd)) return;
  }
}

bool HttpListener::AcceptOne(int listen_fd) {
  AcceptedConnection connection;
  connection.address_size = sizeof connection.address;
  auto* address = reinterpret_cast<sockaddr*>(&connection.address);
  connection.fd.Reset(PULGA_SYS(accept4, listen_fd, address, &connection.address_size,
                                SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (connection.fd.valid()) {
    Admit(std::move(connection));
    return true;
  }
  if (errno == EINTR || errno == ECONNABORTED) return true;
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    if (callbacks_.evict({"", NewCaller::Full::kAll})) return true;
    OnDescriptorsExhausted(listen_fd);
  }
  return false;
}

std::optional<NewCaller::Full> HttpListener::FullFor(const std::string& limit_key) const {
  const auto it = open_.find(limit_key);
  const uint32_t from_there = it == open_.end() ? 0 : it->second;
  const bool local = limit_key == kLocalKey;
  if (from_there >= (local ? limits_.local : limits_.per_address)) {
    return NewCaller::Full::kOwnShare;
  }
  if (!local && open_tcp_ >= limits_.tcp) return NewCaller::Full::kAll;
  return std::nullopt;
}

void HttpListener::Admit(AcceptedConnection connection) {
  connection.limit_key = AddressKey(connection.address);
  const std::string& key = connection.limit_key;
  if (FullFor(key)) callbacks_.on_full();
  if (const auto full = FullFor(key)) (void)callbacks_.evict({key, *full});
  if (FullFor(key)) return callbacks_.turn_away(connection.fd.get());
  ++open_[connection.limit_key];
  if (connection.limit_key != kLocalKey) ++open_tcp_;
  connection.peer = AddressText(connection.address);
  callbacks_.on_accept(std::move(connection));
}

void HttpListener::Release(const std::string& limit_key) {
  const auto it = open_.find(limit_key);
  if (it == open_.end()) return;
  if (--it->second == 0) open_.erase(it);
  if (limit_key != kLocalKey) --open_tcp_;
}

// Level-triggered epoll would report the waiting caller for ever: take one out with the reserve
// descriptor, and look away for a moment.
void HttpListener::OnDescriptorsExhausted(int listen_fd) {
  LogWarning("accept: out of file descriptors; callers are turned away");
  reserve_.Reset();
  UniqueFd caller(accept4(listen_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (caller.valid()) callbacks_.turn_away(caller.get());
  caller.Reset();
  reserve_.Reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  Pause();
}

void HttpListener::Pause() {
  if (pause_timer_ != 0) return;
  for (const Socket& socket : sockets_) loop_.Unwatch(socket.fd.get());
  pause_timer_ = loop_.CallAfter(kPause, [this] {
    pause_timer_ = 0;
    for (const Socket& socket : sockets_) {
      const Status watched = Watch(socket.fd.get());
      if (!watched.ok()) LogError("listen again: " + watched.error().message);
    }
  });
}

void HttpListener::StopAccepting() {
  loop_.Cancel(pause_timer_);
  pause_timer_ = 0;
  for (const Socket& socket : sockets_) {
    loop_.Unwatch(socket.fd.get());
    if (!socket.unlink_path.empty()) unlink(socket.unlink_path.c_str());
  }
  sockets_.clear();
}

}  // namespace pulga
