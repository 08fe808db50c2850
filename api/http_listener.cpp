#include "api/http_listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr int kAcceptsPerTurn = 16;
constexpr auto kPause = std::chrono::milliseconds(100);
// Who holds this many times what nobody holds gets no more: an address ends at three quarters of
// what the others left, as does the next, so that it takes many of them to leave nothing.
constexpr uint32_t kTimesWhatIsLeft = 3;
// Longer than any address: nobody's address is one of these.
constexpr char kLocalKey[] = "local";
constexpr char kFunctionPrefix[] = "function ";
constexpr char kTooMany[] = "too many open connections; try again in a few seconds";
constexpr char kTooManyOfFunction[] =
    "this function has too many open connections to the gateway; close some, or wait for the "
    "replies to its calls";
constexpr char kTooManyOfFunctions[] =
    "functions have too many open connections to the gateway; try again in a few seconds";

bool IsFunctionKey(std::string_view key) { return key.starts_with(kFunctionPrefix); }

const char* WhyFull(std::string_view key, NewCaller::Full full) {
  if (full == NewCaller::Full::kFunctions) return kTooManyOfFunctions;
  const bool own = full == NewCaller::Full::kOwnShare;
  return own && IsFunctionKey(key) ? kTooManyOfFunction : kTooMany;
}

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

bool IsAnothersClosedDirectory(const std::string& socket_path) {
  struct stat st = {};
  return stat(socket_path.substr(0, socket_path.rfind('/')).c_str(), &st) == 0 &&
         st.st_uid != geteuid() && (st.st_mode & 0007) == 0;
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
  // 0660 from its first moment. In a rootless daemon's directory who may enter it decides: the
  // user, who is neither our id nor in our group.
  const mode_t before = umask(IsAnothersClosedDirectory(path) ? 0111 : 0117);
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
  return "unix";
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
  Socket socket{std::move(*fd), address.unix_path, false};
  const int number = socket.fd.get();
  sockaddr_storage bound = {};
  socklen_t size = sizeof bound;
  if (!address.is_unix()) getsockname(number, reinterpret_cast<sockaddr*>(&bound), &size);
  bound_.push_back(address.is_unix() ? name : AddressText(bound));
  sockets_.push_back(std::move(socket));
  return Watch(number);
}

Status HttpListener::ServeGateway(UniqueFd socket) {
  for (const Socket& old : sockets_) {
    if (old.gateway) loop_.Unwatch(old.fd.get());
  }
  std::erase_if(sockets_, [](const Socket& old) { return old.gateway; });
  if (!socket.valid()) return OkStatus();
  const int number = socket.get();
  sockets_.push_back({std::move(socket), "", true});
  return pause_timer_ != 0 ? OkStatus() : Watch(number);
}

bool HttpListener::IsGateway(int listen_fd) const {
  return std::any_of(sockets_.begin(), sockets_.end(), [&](const Socket& socket) {
    return socket.gateway && socket.fd.get() == listen_fd;
  });
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
    connection.from_function = IsGateway(listen_fd);
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
  const bool function = IsFunctionKey(limit_key);
  const uint32_t share = local      ? limits_.local
                         : function ? limits_.per_function
                                    : limits_.per_address;
  if (from_there >= share) return NewCaller::Full::kOwnShare;
  if (function && open_functions_ >= limits_.functions) return NewCaller::Full::kFunctions;
  if (!local && open_tcp_ >= limits_.tcp) return NewCaller::Full::kAll;
  return std::nullopt;
}

bool HttpListener::IsGreedy(const std::string& limit_key) const {
  if (limit_key == kLocalKey || IsFunctionKey(limit_key)) return false;
  const auto it = open_.find(limit_key);
  const uint32_t left = limits_.tcp - std::min(open_tcp_, limits_.tcp);
  return it != open_.end() && it->second >= kTimesWhatIsLeft * left;
}

void HttpListener::Admit(AcceptedConnection connection) {
  connection.limit_key = AddressKey(connection.address);
  if (connection.from_function) connection.limit_key.insert(0, kFunctionPrefix);
  const std::string& key = connection.limit_key;
  if (FullFor(key) || IsGreedy(key)) callbacks_.on_full();
  if (const auto full = FullFor(key)) {
    (void)callbacks_.evict({key, *full});
  } else if (IsGreedy(key) && !callbacks_.evict({key, NewCaller::Full::kAll})) {
    return callbacks_.turn_away(connection.fd.get(), kTooMany);
  }  // what replaces another, its own or of somebody with more, takes nothing of what is left
  if (const auto full = FullFor(key)) {
    return callbacks_.turn_away(connection.fd.get(), WhyFull(key, *full));
  }
  ++open_[connection.limit_key];
  if (connection.limit_key != kLocalKey) ++open_tcp_;
  if (connection.from_function) ++open_functions_;
  connection.peer = AddressText(connection.address);
  callbacks_.on_accept(std::move(connection));
}

void HttpListener::Release(const std::string& limit_key) {
  const auto it = open_.find(limit_key);
  if (it == open_.end()) return;
  if (--it->second == 0) open_.erase(it);
  if (limit_key != kLocalKey) --open_tcp_;
  if (IsFunctionKey(limit_key)) --open_functions_;
}

// Level-triggered epoll would report the waiting caller for ever: take one out with the reserve
// descriptor, and look away for a moment.
void HttpListener::OnDescriptorsExhausted(int listen_fd) {
  LogWarning("accept: out of file descriptors; callers are turned away");
  reserve_.Reset();
  UniqueFd caller(accept4(listen_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (caller.valid()) callbacks_.turn_away(caller.get(), kTooMany);
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
