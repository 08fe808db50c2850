#include "api/http_server.h"

#include <malloc.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "api/http_server_impl.h"

namespace pulga {
namespace http_server {
namespace {

constexpr int kRunsPerTurn = 8;
constexpr int kMostQuietRuns = 16;
constexpr Duration kStallPause = std::chrono::milliseconds(10);

}  // namespace

void Server::StopAccepting() {
  stopping_ = true;
  listener_->StopAccepting();
  for (Exchange* exchange : Exchanges()) {
    if (exchange->handler() != nullptr) exchange->handler()->OnStopping();
    if (exchange->upgraded()) exchange->Leave();  // it has no end of its own to wait for
  }
}

std::vector<Exchange*> Server::Exchanges() {
  std::vector<Exchange*> open;
  for (const ClientConnection& connection : connections_.all()) {
    if (connection.exchange != nullptr) open.push_back(connection.exchange);
  }
  return open;
}

size_t Server::open_requests() const {
  const auto busy = [](const ClientConnection& connection) {
    return connection.exchange != nullptr && connection.exchange->begun();
  };
  const auto& all = connections_.all();
  return static_cast<size_t>(std::count_if(all.begin(), all.end(), busy));
}

Server::~Server() {
  *alive_ = nullptr;
  listener_.reset();
  if (daemon_ == nullptr) return;
  // The library demands that nothing is suspended when it stops. Its last run may read another
  // request, or refuse one: neither may make anybody wait.
  ending_ = true;
  for (Exchange* exchange : Exchanges()) {
    if (exchange->begun()) exchange->Leave();
  }
  MHD_run(daemon_);
  loop_.Unwatch(daemon_epoll_);
  MHD_stop_daemon(daemon_);
}

Status Server::Start() {
  // Pedantic, it would drop a target with a space without a word. CheckHead refuses all of that.
  const unsigned flags = MHD_USE_ERROR_LOG | MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
                         MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE;
  const unsigned limit = config_.limits.tcp + config_.limits.local + 16;
  daemon_ = MHD_start_daemon(flags, 0, nullptr, nullptr, &Server::OnAccess, this,          //
                             MHD_OPTION_EXTERNAL_LOGGER, &Server::OnLibraryLog, this,      //
                             MHD_OPTION_CONNECTION_MEMORY_LIMIT, config_.pool_bytes,       //
                             MHD_OPTION_CONNECTION_LIMIT, limit,                           //
                             MHD_OPTION_CONNECTION_TIMEOUT, 0U,                            //
                             MHD_OPTION_NOTIFY_COMPLETED, &Server::OnCompleted, this,      //
                             MHD_OPTION_NOTIFY_CONNECTION, &Server::OnConnection, this,    //
                             MHD_OPTION_URI_LOG_CALLBACK, &Server::OnTarget, this,         //
                             MHD_OPTION_UNESCAPE_CALLBACK, &Server::KeepEscaped, nullptr,  //
                             MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
  if (daemon_ == nullptr) return LastError("start the HTTP library");
  daemon_epoll_ = MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
  PULGA_RETURN_IF_ERROR(
      loop_.Watch(daemon_epoll_, EPOLLIN, [this](uint32_t) { run_needed_ = true; }));
  loop_.AddPrepare(
      [alive = alive_] { return *alive != nullptr ? (*alive)->Prepare() : Duration::max(); });
  HttpListener::Callbacks callbacks;
  callbacks.on_accept = [this](AcceptedConnection c) { OnAccepted(std::move(c)); };
  callbacks.on_full = [this] { RunLibrary(); };  // lets go of those that have left meanwhile
  callbacks.evict = [this](const NewCaller& caller) {
    const bool evicted = connections_.Evict(caller);
    if (evicted) RunLibrary();
    return evicted;
  };
  callbacks.turn_away = [this](int fd, std::string_view why) {
    last_words_.Say(fd, RefusalOfConnection(fd, why));
  };
  PULGA_ASSIGN_OR_RETURN(
      listener_, HttpListener::Create(loop_, config_.listen, config_.limits, std::move(callbacks)));
  return OkStatus();
}

// Nothing it says is logged: bad requests come at line rate. One message is a hook we need.
void Server::OnLibraryLog(void* self, const char* format, va_list arguments) {
  if (strncmp(format, "Error processing request", 24) != 0) return;
  const unsigned status = va_arg(arguments, unsigned);
  static_cast<Server*>(self)->OnLibraryRefusal(status, va_arg(arguments, const char*));
}

// This version's own answer is HTML, follows a reply that has begun, and for some heads has two
// status lines. It does not say whom it is about to refuse, but it sends nothing on a connection
// that is suspended in this moment. So all who are in the middle of a request are held until the
// run is over, when the library's answer shows whose it is (EndRefused). A client that is not known
// to have begun a request can only be guessed: it gets our answer before the library's, whose own
// attempt then fails. Without a guess the library's goes out; the connection ends in any case.
void Server::OnLibraryRefusal(unsigned status, std::string_view text) {
  stirred_ = true;
  if (ending_) return;
  // A bad trailer is called a bad header.
  const bool about_chunks = text.find("chunk") != std::string_view::npos;
  ClientConnection* refused = about_chunks ? nullptr : FindJudged();
  if (refused == nullptr && (about_chunks || (status == 400 && ChunksComeIn()))) {
    refused_ = true;
    for (Exchange* exchange : Exchanges()) {
      if (exchange->receives()) exchange->Hold();
    }
    return;
  }
  if (refused == nullptr) refused = GuessRefused();
  if (refused != nullptr) TellWhy(*refused, static_cast<int>(status));
}

ClientConnection* Server::FindJudged() {
  for (ClientConnection& connection : connections_.all()) {
    if (connection.exchange != nullptr && connection.exchange->judged()) return &connection;
  }
  return nullptr;
}

bool Server::ChunksComeIn() const {
  const auto& all = connections_.all();
  return std::any_of(all.begin(), all.end(), [](const ClientConnection& connection) {
    return connection.exchange != nullptr && connection.exchange->reads_chunks();
  });
}

// Whoever sent last. Nobody when two sent within one tick of the kernel's clock.
ClientConnection* Server::GuessRefused() {
  ClientConnection* latest = nullptr;
  uint32_t latest_ms = UINT32_MAX;
  bool alone = true;
  for (ClientConnection& connection : connections_.all()) {
    if (connection.told_why) continue;
    if (connection.exchange != nullptr && connection.exchange->begun()) continue;
    const Received received = ReceivedOn(connection);
    if (connection.is_tcp && received.bytes == 0) continue;
    if (received.last_ms == latest_ms) alone = false;
    if (received.last_ms >= latest_ms) continue;
    alone = true;
    latest_ms = received.last_ms;
    latest = &connection;
  }
  return alone ? latest : nullptr;
}

// A request with a response that we did not queue is refused. If its reply has begun, nothing may
// follow that.
void Server::EndRefused() {
  if (!std::exchange(refused_, false)) return;
  for (Exchange* exchange : Exchanges()) {
    const std::optional<unsigned> status = exchange->refusal();
    if (status && exchange->answered()) {
      exchange->Leave();
    } else if (status) {
      TellWhy(exchange->connection(), static_cast<int>(*status));
    }
    exchange->Release();
  }
}

void Server::TellWhy(ClientConnection& connection, int status) {
  if (connection.told_why) return;
  connection.told_why = true;
  const bool known = connection.exchange != nullptr;
  const std::string target = known ? connection.exchange->request().target : std::string();
  last_words_.Say(connection.fd, RefusalOfRequest(status, target));
}

// The client's patience with us is not the matter: it was too slow with its own request.
void Server::OnExpired(ClientConnection& connection) {
  using Phase = ConnectionClock::Phase;
  const Phase phase = connection.clock.phase();
  if (connection.exchange != nullptr && phase == Phase::kBody) connection.exchange->EndSoon();
  if (phase != Phase::kHead && phase != Phase::kIdle && phase != Phase::kBody) return;
  if (connection.exchange == nullptr) {
    if (phase != Phase::kHead || ReceivedOn(connection).bytes == 0) return;
  } else if (connection.exchange->answered()) {
    return;
  }
  TellWhy(connection, 408);
}

// MHD_get_timeout of this version knows nothing of pending resumes, and its sockets are
// edge-triggered: run until it wants no more, but let the other fds have their turn. It always
// wants more while a call waits briefly, or a buffer is full of what it can not use (a chunk
// extension). So runs in which nothing happens are few, and the next one then takes a pause.
Duration Server::Prepare() {
  buried_.clear();
  if (stalled_ && loop_.Now() - last_run_ >= kStallPause) run_needed_ = true;
  for (int i = 0; run_needed_ && i < kRunsPerTurn; ++i) {
    QueueReady();
    run_needed_ = stirred_ = false;
    last_run_ = loop_.Now();
    RunLibrary();
    MHD_UNSIGNED_LONG_LONG timeout_ms = 1;
    const bool wants_more = MHD_get_timeout(daemon_, &timeout_ms) == MHD_YES && timeout_ms == 0;
    quiet_runs_ = wants_more && !stirred_ ? quiet_runs_ + 1 : 0;
    stalled_ = quiet_runs_ >= kMostQuietRuns || (quiet_runs_ > 0 && brief_waits_ > 0);
    if (wants_more && !stalled_) run_needed_ = true;
  }
  if (run_needed_) return Duration::zero();
  return stalled_ ? kStallPause : Duration::max();
}

void Server::RunLibrary() {
  MHD_run(daemon_);
  EndRefused();
  CleanEnded();
}

// Where reading a body ends the connection, this version leaves it closed but not cleaned up, in no
// set that it looks at, until it happens to be the oldest of all. What is resumed is looked at.
void Server::CleanEnded() {
  for (const auto& [connection, mhd] : std::exchange(ended_, {})) {
    if (connection->exchange != nullptr) continue;  // it lives on
    MHD_suspend_connection(mhd);
    MHD_resume_connection(mhd);
    run_needed_ = true;
  }
}

// Outside of a run, so that the run finds the reply's head and writes at once.
void Server::QueueReady() {
  for (size_t i = 0; i < ready_.size(); ++i) {
    if (ready_[i] != nullptr && !ready_[i]->answered()) (void)ready_[i]->Queue();
  }
  ready_.clear();
}

void Server::Forget(const Exchange& exchange) {
  for (Exchange*& ready : ready_) {
    if (ready == &exchange) ready = nullptr;
  }
}

void Server::OnAccepted(AcceptedConnection accepted) {
  ClientConnection& connection = connections_.Add(accepted);
  accepting_ = &connection;
  const auto* address = reinterpret_cast<const sockaddr*>(&accepted.address);
  const socklen_t size = std::max<socklen_t>(accepted.address_size, sizeof(sa_family_t));
  // The library closes the socket, also when it refuses it.
  const MHD_Result added = MHD_add_connection(daemon_, accepted.fd.Release(), address, size);
  if (added != MHD_YES && accepting_ != nullptr) {
    listener_->Release(connection.limit_key);
    connections_.Remove(connection);
  }
  accepting_ = nullptr;
  run_needed_ = true;
}

void* Server::OnTarget(void* self, const char* target, MHD_Connection* connection) {
  const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return new Exchange(*static_cast<Server*>(self), target, connection,
                      static_cast<ClientConnection*>(info->socket_context));
}

MHD_Result Server::OnAccess(void*, MHD_Connection* connection, const char*, const char* method,
                            const char* version, const char* data, size_t* size, void** context) {
  return static_cast<Exchange*>(*context)->OnCall(connection, method, version, data, size);
}

void Server::OnCompleted(void* self, MHD_Connection* connection, void** context,
                         MHD_RequestTerminationCode) {
  auto* server = static_cast<Server*>(self);
  const auto* info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  auto* owner = static_cast<ClientConnection*>(info->socket_context);
  owner->clock.Enter(ConnectionClock::Phase::kIdle, server->loop_.Now());
  server->NeedAnotherRun();
  if (*context != nullptr) static_cast<Exchange*>(*context)->SaveRest();
  // A buried handler still hears from its invocation, and would speak to an exchange that is gone.
  server->buried_.clear();
  delete static_cast<Exchange*>(*context);
  *context = nullptr;
}

void Server::OnConnection(void* self, MHD_Connection*, void** context,
                          MHD_ConnectionNotificationCode code) {
  auto* server = static_cast<Server*>(self);
  if (code == MHD_CONNECTION_NOTIFY_STARTED) {
    *context = server->accepting_;
    server->accepting_ = nullptr;
    return;
  }
  auto* connection = static_cast<ClientConnection*>(*context);
  std::erase_if(server->ended_, [&](const auto& ended) { return ended.first == connection; });
  if (server->listener_) server->listener_->Release(connection->limit_key);
  server->connections_.Remove(*connection);
  // Pools of closed connections stay with the allocator otherwise.
  if (++server->dropped_since_trim_ >= 256 && server->connections_.size() < 16) {
    server->dropped_since_trim_ = 0;
    malloc_trim(0);
  }
}

}  // namespace http_server

Result<std::unique_ptr<HttpServer>> HttpServer::Create(EventLoop& loop, HttpServerConfig config,
                                                       HandlerFactory factory) {
  auto server = std::make_unique<http_server::Server>(loop, std::move(config), std::move(factory));
  PULGA_RETURN_IF_ERROR(server->Start());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace pulga
