#include "api/http_server.h"

#include <malloc.h>
#include <microhttpd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "api/http_server_impl.h"
#include "base/log.h"
#include "base/text.h"

namespace pulga {
namespace http_server {
namespace {

constexpr int kRunsPerTurn = 8;
// A rest of a body this small is read and dropped rather than costing the connection.
constexpr uint64_t kDrainBytes = 256 * 1024;
// A refused upload may still be sending this much before the connection is cut.
constexpr uint64_t kLingerBytes = 64ULL << 20;
constexpr size_t kStreamBlock = 32 * 1024;

}  // namespace

Exchange::~Exchange() {
  StopWatching();
  server_.RemoveExchange(this);
}

std::optional<HeadProblem> Exchange::Begin(MHD_Connection* connection, const char* method,
                                           const char* version) {
  begun_ = true;
  mhd_ = connection;
  request_.method = method;
  request_.version = version;
  request_.peer = connection_->peer;
  const bool tight = ReadHeaders(method, version);
  if (auto problem = CheckHead(request_)) return problem;
  if (!tight) return HeadProblem{400, "the head holds a NUL, a bare line feed or a folded line"};
  return std::nullopt;
}

// The library cuts values at a NUL, accepts bare LF and glues folded lines; all of these leave gaps
// between what it hands out, where nothing but CR LF may be. False when there is such a gap.
bool Exchange::ReadHeaders(const char* method, const char* version) {
  struct Walk {
    HeaderList& headers;
    const char* end;  // of what was read last
    bool tight = true;
  } walk{request_.headers, version + strlen(version)};
  const auto add = [](void* self, MHD_ValueKind, const char* key, size_t key_size,
                      const char* value, size_t value_size) {
    auto& to = *static_cast<Walk*>(self);
    to.tight = to.tight && key - to.end == 2;
    to.end = value + value_size;
    to.headers.emplace_back(std::string(key, key_size), std::string(value, value_size));
    return MHD_YES;
  };
  request_.headers.reserve(12);
  MHD_get_connection_values_n(mhd_, MHD_HEADER_KIND, add, &walk);
  const auto* info = MHD_get_connection_info(mhd_, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
  if (method + info->header_size - walk.end != 4) walk.tight = false;
  const std::string* expect = request_.Header("Expect");
  expects_continue_ = expect != nullptr && EqualsIgnoreCase(*expect, "100-continue");
  if (request_.Header("Transfer-Encoding") != nullptr) {
    request_.chunked = true;
  } else if (const std::string* length = request_.Header("Content-Length")) {
    request_.content_length = ParseUint(*length);
  }
  return walk.tight;
}

// The library calls: once after the head, then per piece of body, then once more. After a
// suspension it repeats the call that suspended.
MHD_Result Exchange::OnCall(MHD_Connection* connection, const char* method, const char* version,
                            const char* data, size_t* size) {
  if (gone_) return MHD_NO;
  in_callback_ = true;
  MHD_Result result = MHD_YES;
  if (!begun_) {
    if (auto problem = Begin(connection, method, version)) {
      reply_.status = problem->status;
      reply_.body = problem->text + "\n";
      reply_.headers = {{"Content-Type", "text/plain; charset=utf-8"}};
      reply_.close = has_reply_ = true;
      result = Queue();
      in_callback_ = false;
      return result;
    }
    connection_->clock.Enter(
        request_.has_body() ? ConnectionClock::Phase::kBody : ConnectionClock::Phase::kOurs,
        server_.loop().Now());
    handler_ = server_.factory()(*this);
    handler_->Start();
    result = OnFirstCall();
  } else if (state_ == State::kHead) {
    result = OnFirstCall();
  } else if (*size != 0) {
    result = OnBodyBytes(data, size);
  } else {
    result = OnFinalCall();
  }
  in_callback_ = false;
  return result;
}

// A large or unknown rest of a body must not delay the reply; and a function that answers while it
// reads would wait for ever if its answer had to wait for the last byte.
bool Exchange::MustReplyNow() const {
  if (!has_reply_ || raw_ || reply_.file.valid()) return false;
  if (reply_.streamed) return true;
  return !request_.content_length || *request_.content_length - body_received_ > kDrainBytes;
}

MHD_Result Exchange::OnFirstCall() {
  if (has_reply_ && request_.has_body()) {
    // Queued in the first call: the library sends it, reads nothing more and closes. Right for
    // those who wait for 100-continue; for those already sending, see ReplyNow.
    if (expects_continue_) return Queue();
    if (MustReplyNow() && !reply_.streamed) return ReplyNow();
  } else if (hold_body_ && request_.has_body()) {
    Suspend();
    return MHD_YES;
  }
  hold_body_ = false;
  state_ = request_.has_body() ? State::kBody : State::kEnd;
  if (state_ == State::kEnd && !has_reply_) handler_->OnBodyEnd();
  if (state_ == State::kBody && MustReplyNow()) return ReplyNow();
  return MHD_YES;
}

MHD_Result Exchange::OnBodyBytes(const char* data, size_t* size) {
  if (state_ == State::kLingering || (has_reply_ && !raw_)) {
    body_received_ += *size;
    connection_->clock.OnBodyBytes(*size, server_.loop().Now());
    *size = 0;
    if (MustReplyNow()) return ReplyNow();
    return body_received_ > kLingerBytes ? MHD_NO : MHD_YES;
  }
  const size_t taken = handler_->OnBody(std::string_view(data, *size));
  body_received_ += taken;
  connection_->clock.OnBodyBytes(taken, server_.loop().Now());
  *size -= taken;
  if (MustReplyNow()) {
    if (!reply_.streamed) *size = 0;
    if (ReplyNow() == MHD_NO) return MHD_NO;
  } else if (has_reply_ && !raw_) {
    *size = 0;
  }
  if (*size != 0) {
    Suspend();
  }
  return MHD_YES;
}

MHD_Result Exchange::OnFinalCall() {
  if (state_ == State::kLingering) return MHD_NO;
  if (state_ == State::kBody) {
    state_ = State::kEnd;
    connection_->clock.Enter(ConnectionClock::Phase::kOurs, server_.loop().Now());
    if (!has_reply_ || raw_) handler_->OnBodyEnd();
  }
  if (raw_) {
    if (raw_->ended()) return MHD_NO;
  } else if (has_reply_) {
    return Queue();
  }
  Suspend();
  return MHD_YES;
}

void Exchange::Reply(HttpReply reply) {
  if (has_reply_ || gone_) return;
  has_reply_ = true;
  reply_ = std::move(reply);
  if (server_.stopping()) reply_.close = true;
  if (state_ == State::kBody && !in_callback_ && MustReplyNow()) {
    // Between two pieces of body: tell the caller now, not when it has sent everything.
    (void)ReplyNow();
    if (reply_.streamed) return;
  }
  Resume();
}

void Exchange::ContinueBody() {
  hold_body_ = false;
  Resume();
}

// The library can queue a reply only before or after a body. In the middle of one the reply is
// written to the socket directly (nothing of the library's is under way there).
MHD_Result Exchange::ReplyNow() {
  StopWatching();
  const auto on_end = [this](RawReply::End end) { OnRawEnd(end); };
  raw_ = std::make_unique<RawReply>(server_.loop(), connection_->fd, on_end);
  if (!reply_.streamed) Linger();
  raw_->Start(request_, reply_, handler_.get());
  if (!reply_.streamed) server_.Bury(std::move(handler_));
  return gone_ ? MHD_NO : MHD_YES;
}

// The caller gets a moment to read the reply while what it still sends is dropped: closing at once
// would make the kernel discard the reply.
void Exchange::Linger() {
  if (state_ != State::kBody && state_ != State::kHead) return;
  state_ = State::kLingering;
  if (!suspended_) connection_->clock.Enter(ConnectionClock::Phase::kLinger, server_.loop().Now());
}

void Exchange::OnRawEnd(RawReply::End end) {
  if (end == RawReply::End::kBroken) return Leave();
  shutdown(connection_->fd, SHUT_WR);
  Linger();
  server_.Bury(std::move(handler_));
  Resume();
}

MHD_Response* Exchange::MakeResponse() {
  if (reply_.streamed) {
    const uint64_t size = reply_.stream_size.value_or(MHD_SIZE_UNKNOWN);
    const auto read = [](void* self, uint64_t, char* buffer, size_t capacity) {
      return static_cast<Exchange*>(self)->ReadBody(buffer, capacity);
    };
    const size_t block = static_cast<size_t>(std::clamp<uint64_t>(size, 1, kStreamBlock));
    return MHD_create_response_from_callback(size, block, read, this, nullptr);
  }
  if (reply_.file.valid()) {
    return MHD_create_response_from_fd64(reply_.file_size, reply_.file.Release());
  }
  // The body lives in this exchange, which outlives the response.
  return MHD_create_response_from_buffer(reply_.body.size(), reply_.body.data(),
                                         MHD_RESPMEM_PERSISTENT);
}

MHD_Result Exchange::Queue() {
  MHD_Response* response = MakeResponse();
  if (response == nullptr) return MHD_NO;
  for (const auto& [name, value] : reply_.headers) {
    if (!IsFitReplyHeader(name, value) && !EqualsIgnoreCase(name, "Trailer")) continue;
    (void)MHD_add_response_header(response, name.c_str(), value.c_str());
  }
  if (reply_.close || server_.stopping())
    (void)MHD_add_response_header(response, "Connection", "close");
  state_ = State::kReplying;
  response_ = response;
  connection_->clock.Enter(ConnectionClock::Phase::kReply, server_.loop().Now());
  const MHD_Result queued =
      MHD_queue_response(mhd_, static_cast<unsigned>(reply_.status), response);
  MHD_destroy_response(response);  // drops our reference only
  return queued;
}

ssize_t Exchange::ReadBody(char* buffer, size_t capacity) {
  if (gone_) return MHD_CONTENT_READER_END_WITH_ERROR;
  const ReadResult result = handler_->Read(buffer, capacity);
  switch (result.state) {
    case ReadState::kData:
      return static_cast<ssize_t>(result.size);
    case ReadState::kWait:
      Suspend();
      return 0;
    case ReadState::kEnd:
      if (!reply_.stream_size) {
        for (const auto& [name, value] : handler_->Trailers()) {
          if (IsFitReplyHeader(name, value))
            (void)MHD_add_response_footer(response_, name.c_str(), value.c_str());
        }
      }
      return MHD_CONTENT_READER_END_OF_STREAM;
    case ReadState::kAborted:
      break;
  }
  return MHD_CONTENT_READER_END_WITH_ERROR;
}

void Exchange::Suspend() {
  if (suspended_) return;
  suspended_ = true;
  connection_->clock.Enter(ConnectionClock::Phase::kOurs, server_.loop().Now());
  // A raw reply watches the socket itself.
  if (!raw_) leaving_ = server_.leavers().Begin(connection_->fd, [this] { Leave(); });
  MHD_suspend_connection(mhd_);
}

void Exchange::Resume() {
  if (!suspended_) return;
  suspended_ = false;
  StopWatching();
  using Phase = ConnectionClock::Phase;
  const bool in_body = state_ == State::kBody || (state_ == State::kHead && !has_reply_);
  const Phase phase = in_body                      ? Phase::kBody
                      : state_ == State::kReplying ? Phase::kReply
                                                   : Phase::kOurs;
  connection_->clock.Enter(phase, server_.loop().Now());
  MHD_resume_connection(mhd_);
  server_.NeedRun();
}

void Exchange::StopWatching() {
  if (leaving_) server_.leavers().End(*std::exchange(leaving_, std::nullopt));
}

// The client is gone, or has to go. The handler's destruction cancels whatever runs for it.
void Exchange::Leave() {
  gone_ = true;
  if (raw_) raw_->Stop();
  shutdown(connection_->fd, SHUT_RDWR);
  Resume();
  server_.Bury(std::move(handler_));
}

void Server::StopAccepting() {
  stopping_ = true;
  listener_->StopAccepting();
  const std::vector<Exchange*> open(exchanges_.begin(), exchanges_.end());
  for (Exchange* exchange : open) {
    if (exchange->handler() != nullptr) exchange->handler()->OnStopping();
  }
}

size_t Server::open_requests() const {
  const auto begun = [](const Exchange* exchange) { return exchange->begun(); };
  return static_cast<size_t>(std::count_if(exchanges_.begin(), exchanges_.end(), begun));
}

Server::~Server() {
  *alive_ = nullptr;
  listener_.reset();
  if (daemon_ == nullptr) return;
  // The library demands that nothing is suspended when it stops.
  const std::vector<Exchange*> open(exchanges_.begin(), exchanges_.end());
  for (Exchange* exchange : open) {
    if (exchange->begun()) exchange->Leave();
  }
  MHD_run(daemon_);
  loop_.Unwatch(daemon_epoll_);
  MHD_stop_daemon(daemon_);
}

Status Server::Start() {
  const unsigned flags = MHD_USE_ERROR_LOG | MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
                         MHD_ALLOW_SUSPEND_RESUME | MHD_USE_PEDANTIC_CHECKS;
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
  callbacks.on_full = [this] { MHD_run(daemon_); };  // lets go of those that have left meanwhile
  PULGA_ASSIGN_OR_RETURN(
      listener_, HttpListener::Create(loop_, config_.listen, config_.limits, std::move(callbacks)));
  return OkStatus();
}

// Nothing it says is logged: bad requests come at line rate. One message is a hook we need.
void Server::OnLibraryLog(void* self, const char* format, va_list arguments) {
  if (strncmp(format, "Error processing request", 24) != 0) return;
  static_cast<Server*>(self)->OnLibraryRefusal(va_arg(arguments, unsigned));
}

Exchange* Server::ExchangeOn(const ClientConnection& connection) const {
  for (Exchange* exchange : exchanges_) {
    if (&exchange->connection() == &connection) return exchange;
  }
  return nullptr;
}

// The library does not say which connection it is about to refuse: the one whose head it is
// judging, or whoever sent last. Nobody when two sent within one tick of the kernel's clock.
Server::Suspect Server::FindSuspect() {
  Suspect latest;
  uint32_t latest_ms = UINT32_MAX;
  bool alone = true;
  std::unordered_map<const ClientConnection*, Exchange*> open;
  for (Exchange* exchange : exchanges_) {
    if (exchange->judged()) return {&exchange->connection(), exchange};
    open[&exchange->connection()] = exchange;
  }
  for (ClientConnection& connection : connections_.all()) {
    const auto found = open.find(&connection);
    Exchange* exchange = found == open.end() ? nullptr : found->second;
    if (exchange != nullptr && exchange->begun() && !exchange->reads_chunks()) continue;
    const Received received = ReceivedOn(connection);
    if (connection.is_tcp && received.bytes == 0) continue;
    if (received.last_ms == latest_ms) alone = false;
    if (received.last_ms >= latest_ms) continue;
    alone = true;
    latest_ms = received.last_ms;
    latest = {&connection, exchange};
  }
  return alone ? latest : Suspect{};
}

// This version's own answer is HTML, follows a head that is out already, and for some heads has
// two status lines. Answer before it does, so that its own attempt fails. Without a suspect its
// answer goes out as it is; the connection ends in any case.
void Server::OnLibraryRefusal(unsigned status) {
  const Suspect suspect = FindSuspect();
  if (suspect.connection == nullptr) return;
  if (suspect.exchange != nullptr && suspect.exchange->answered()) {
    return suspect.exchange->Leave();
  }
  const std::string target =
      suspect.exchange != nullptr ? suspect.exchange->request().target : std::string();
  last_words_.Say(suspect.connection->fd, RefusalOfRequest(static_cast<int>(status), target));
}

// The client's patience with us is not the matter: it was too slow with its own request.
void Server::OnExpired(ClientConnection& connection) {
  using Phase = ConnectionClock::Phase;
  const Phase phase = connection.clock.phase();
  if (phase != Phase::kHead && phase != Phase::kIdle && phase != Phase::kBody) return;
  const Exchange* exchange = ExchangeOn(connection);
  if (exchange == nullptr) {
    if (phase != Phase::kHead || ReceivedOn(connection).bytes == 0) return;
  } else if (exchange->answered()) {
    return;
  }
  last_words_.Say(connection.fd,
                  RefusalOfRequest(408, exchange != nullptr ? exchange->request().target : ""));
}

// MHD_get_timeout of this version knows nothing of pending resumes, and its sockets are
// edge-triggered: run until it wants no more, but let the other fds have their turn.
Duration Server::Prepare() {
  buried_.clear();
  for (int i = 0; run_needed_ && i < kRunsPerTurn; ++i) {
    run_needed_ = false;
    MHD_run(daemon_);
    MHD_UNSIGNED_LONG_LONG timeout_ms = 1;
    if (MHD_get_timeout(daemon_, &timeout_ms) == MHD_YES && timeout_ms == 0) run_needed_ = true;
  }
  return run_needed_ ? Duration::zero() : Duration::max();
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
