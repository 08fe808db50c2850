// The two classes the HTTP server consists of: the server (http_server.cpp), and one request with
// its reply (http_exchange.cpp). For these files alone: no type of libmicrohttpd may be seen
// elsewhere.
#pragma once

#include <microhttpd.h>

#include <cstdarg>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/client_connections.h"
#include "api/http_server.h"
#include "api/last_words.h"
#include "api/leaver_watch.h"
#include "api/raw_reply.h"
#include "api/upgraded_connection.h"

namespace pulga::http_server {

class Exchange;

class Server final : public HttpServer {
 public:
  Server(EventLoop& loop, HttpServerConfig config, HandlerFactory factory)
      : loop_(loop),
        config_(std::move(config)),
        factory_(std::move(factory)),
        alive_(std::make_shared<Server*>(this)),
        last_words_(loop),
        connections_(loop, config_.patience, [this](ClientConnection& c) { OnExpired(c); }),
        leavers_(loop) {}
  ~Server() override;
  Status Start();

  const std::vector<std::string>& bound() const override { return listener_->bound(); }
  Status ServeGateway(UniqueFd socket) override {
    if (stopping_) return OkStatus();
    return listener_->ServeGateway(std::move(socket));
  }
  void StopAccepting() override;
  void SetPatience(const ConnectionPatience& patience) override {
    connections_.SetPatience(patience);
  }
  size_t open_requests() const override;
  size_t open_connections() const override { return connections_.size(); }

  size_t pool_bytes() const { return config_.pool_bytes; }
  bool stopping() const { return stopping_; }
  bool ending() const { return ending_; }  // being destroyed: no request begins any more
  EventLoop& loop() { return loop_; }
  const HandlerFactory& factory() const { return factory_; }
  void NeedRun() { run_needed_ = true; }
  // A run changed something that the next one may have to go on with.
  void NeedAnotherRun() { stirred_ = true; }
  // Its reply is there: it is handed to the library before the next run.
  void HasReply(Exchange& exchange) {
    ready_.push_back(&exchange);
    run_needed_ = true;
  }
  bool MayWaitBriefly() const { return brief_waits_ < kMostBriefWaits && file_replies_ == 0; }
  size_t& brief_waits() { return brief_waits_; }
  size_t& file_replies() { return file_replies_; }
  // A handler may be the one that is calling: it is destroyed before the next wait.
  void Bury(std::unique_ptr<HttpHandler> handler) { buried_.push_back(std::move(handler)); }
  void Forget(const Exchange& exchange);
  // The library ends this connection where a body ended: it is looked at again after the run.
  void EndsWithItsBody(ClientConnection& connection, MHD_Connection* mhd) {
    ended_.emplace_back(&connection, mhd);
  }
  LeaverWatch& leavers() { return leavers_; }
  LastWords& last_words() { return last_words_; }

 private:
  // Every run asks each of them again.
  static constexpr size_t kMostBriefWaits = 64;

  static MHD_Result OnAccess(void*, MHD_Connection*, const char*, const char*, const char*,
                             const char*, size_t*, void**);
  static void* OnTarget(void*, const char*, MHD_Connection*);
  static void OnCompleted(void*, MHD_Connection*, void**, MHD_RequestTerminationCode);
  static void OnConnection(void*, MHD_Connection*, void**, MHD_ConnectionNotificationCode);
  static size_t KeepEscaped(void*, MHD_Connection*, char* text) { return strlen(text); }

  static void OnLibraryLog(void* self, const char* format, va_list);
  ClientConnection* FindJudged();
  ClientConnection* GuessRefused();
  bool ChunksComeIn() const;
  void OnLibraryRefusal(unsigned status, std::string_view text);
  void EndRefused();
  void TellWhy(ClientConnection& connection, int status);
  std::vector<Exchange*> Exchanges();
  void OnExpired(ClientConnection& connection);
  void OnAccepted(AcceptedConnection accepted);
  Duration Prepare();
  void QueueReady();
  void RunLibrary();
  void CleanEnded();

  EventLoop& loop_;
  HttpServerConfig config_;
  HandlerFactory factory_;
  std::shared_ptr<Server*> alive_;  // the loop keeps its prepare hook for ever
  MHD_Daemon* daemon_ = nullptr;
  int daemon_epoll_ = -1;
  std::unique_ptr<HttpListener> listener_;
  LastWords last_words_;
  ClientConnections connections_;
  LeaverWatch leavers_;
  ClientConnection* accepting_ = nullptr;
  std::vector<std::unique_ptr<HttpHandler>> buried_;
  std::vector<Exchange*> ready_;
  std::vector<std::pair<ClientConnection*, MHD_Connection*>> ended_;
  size_t brief_waits_ = 0;
  size_t file_replies_ = 0;  // the library goes on with these without a word to us
  size_t dropped_since_trim_ = 0;
  bool run_needed_ = false;
  bool stirred_ = false;
  bool stalled_ = false;  // the library wants to run, but nothing comes of it
  int quiet_runs_ = 0;
  TimePoint last_run_;
  bool refused_ = false;  // the library refused a request in this run
  bool stopping_ = false;
  bool ending_ = false;
};

// One request and its reply, between the library's callbacks and our handler.
class Exchange final : public HttpExchange, private LeaverWatch::Waiter {
 public:
  Exchange(Server& server, const char* target, MHD_Connection* mhd, ClientConnection* connection)
      : server_(server), connection_(connection), mhd_(mhd) {
    request_.target = target != nullptr ? target : "";
    connection_->exchange = this;
  }
  ~Exchange() override;

  const HttpRequest& request() const override { return request_; }
  HeaderList TakeHeaders() override { return std::move(request_.headers); }
  void DropHeader(std::string_view name) override {
    std::erase_if(request_.headers,
                  [&](const auto& header) { return EqualsIgnoreCase(header.first, name); });
  }
  void Reply(HttpReply reply) override;
  void ContinueBody() override;
  void ContinueReply() override;
  void HoldBody() override { hold_body_ = true; }
  bool ClientHasLeft() const override;

  MHD_Result OnCall(MHD_Connection* connection, const char* method, const char* version,
                    const char* data, size_t* size);
  ClientConnection& connection() const { return *connection_; }
  bool begun() const { return begun_; }
  // The head is complete, and the library is judging it at this moment.
  bool judged() const {
    return !begun_ &&
           MHD_get_connection_info(mhd_, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE) != nullptr;
  }
  bool reads_chunks() const {
    return request_.chunked && (state_ == State::kBody || state_ == State::kLingering);
  }
  bool receives() const { return wait_ == Wait::kNone && (!begun_ || reads_chunks()); }
  // Until Release nothing is read from its client, and nothing the library has queued is sent.
  void Hold();
  void Release();
  // The status of a reply that the library has queued instead of us.
  std::optional<unsigned> refusal() const {
    const auto* info = MHD_get_connection_info(mhd_, MHD_CONNECTION_INFO_HTTP_STATUS);
    if (info == nullptr || state_ == State::kReplying) return std::nullopt;
    return info->http_status;
  }
  bool answered() const { return raw_ != nullptr || state_ == State::kReplying; }
  // Another protocol is spoken on it: the library has handed its socket over.
  bool upgraded() const { return upgraded_ != nullptr; }
  void Leave();
  // The request ends: what its client still got through goes to a handler that wants it.
  void SaveRest();
  // After a cut: while its buffer is full the library does not look at the socket any more.
  void EndSoon() { (void)MHD_set_connection_option(mhd_, MHD_CONNECTION_OPTION_TIMEOUT, 1U); }
  MHD_Result Queue();
  HttpHandler* handler() { return handler_.get(); }

 private:
  enum class State { kHead, kBody, kEnd, kReplying, kLingering };
  // kBrief: for the reply, in the library's list of ready connections, asked again by every run.
  // Suspending takes the socket out of the library's epoll set and back, which costs more system
  // calls than the whole rest of a short call.
  enum class Wait { kNone, kBrief, kSuspended };

  std::optional<HeadProblem> Begin(MHD_Connection* connection, const char* method,
                                   const char* version);
  bool ReadHeaders(const char* method, const char* version);
  MHD_Result OnFirstCall();
  MHD_Result OnBodyBytes(const char* data, size_t* size);
  MHD_Result OnFinalCall();
  static void OnUpgrade(void*, MHD_Connection*, void*, const char*, size_t, MHD_socket,
                        MHD_UpgradeResponseHandle*);
  void BeginUpgraded(std::string received);
  void EndUpgraded();
  MHD_Response* MakeResponse();
  bool EndsWithItsHead() const;
  bool HeadFits() const;
  MHD_Result ReplyNow();
  void Linger();
  void OnRawEnd(RawReply::End end);
  ssize_t ReadBody(char* buffer, size_t capacity);
  ssize_t EndBody(ssize_t how);
  void BreakOff() const;
  void AwaitReply();
  void Suspend();
  void Resume();
  void EndWait();
  void StopWatching();
  void OnLongWait() override;
  void OnLeave() override { Leave(); }
  bool MustReplyNow() const;

  Server& server_;
  ClientConnection* connection_ = nullptr;
  MHD_Connection* mhd_ = nullptr;
  MHD_Response* response_ = nullptr;  // borrowed while streaming, for the trailers
  HttpRequest request_;
  HttpReply reply_;
  std::unique_ptr<HttpHandler> handler_;
  size_t head_cost_ = 0;  // of the library's memory for this connection
  std::unique_ptr<RawReply> raw_;
  std::unique_ptr<UpgradedConnection> upgraded_;
  MHD_UpgradeResponseHandle* upgrade_ = nullptr;  // until the library has its socket back
  State state_ = State::kHead;
  uint64_t body_received_ = 0;
  std::string untaken_;  // for SaveRest: offered, and still the library's
  bool begun_ = false;
  bool held_ = false;
  bool expects_continue_ = false;
  bool has_reply_ = false;
  bool hold_body_ = false;
  bool in_callback_ = false;
  bool sends_file_ = false;
  Wait wait_ = Wait::kNone;
  bool gone_ = false;
  std::optional<LeaverWatch::Entry> leaving_;
};

}  // namespace pulga::http_server
