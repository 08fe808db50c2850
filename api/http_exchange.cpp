#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "api/http_server_impl.h"
#include "base/text.h"

namespace pulga::http_server {
namespace {

// A rest of a body this small is read and dropped rather than costing the connection.
constexpr uint64_t kDrainBytes = 256 * 1024;
// A refused upload may still be sending this much before the connection is cut.
constexpr uint64_t kLingerBytes = 64ULL << 20;
constexpr size_t kStreamBlock = 32 * 1024;
// Of a cut body; more than a socket holds.
constexpr uint64_t kMostSaved = 16ULL << 20;
// What a header of a request takes of the library's memory for a connection, beside its text.
constexpr size_t kPoolForEachHeader = 64;

// In no header value that is fit to be sent.
constexpr char kLineEnd[] = "\1\1";

// A header costs the library three allocations, and lines of its own are a quarter of what it does
// for a short call. So all but the ones that it treats specially are added as one: the first with
// the others behind its value, and in the library's copy of that the line ends are put in, which
// it would refuse from us.
void AddHeaders(const HeaderList& headers, MHD_Response* response) {
  const std::string* first = nullptr;
  std::string lines;
  for (const auto& [name, value] : headers) {
    if (value.empty()) continue;  // the library knows no such thing
    const bool special = EqualsIgnoreCase(name, "Date");
    if (!IsFitReplyHeader(name, value) && !EqualsIgnoreCase(name, "Trailer")) continue;
    if (special) {
      (void)MHD_add_response_header(response, name.c_str(), value.c_str());
    } else if (first == nullptr) {
      first = &name;
      lines.reserve(320);
      lines = value;
    } else {
      lines.append(kLineEnd).append(name).append(": ").append(value);
    }
  }
  if (first == nullptr) return;
  if (MHD_add_response_header(response, first->c_str(), lines.c_str()) != MHD_YES) return;
  char* copy = const_cast<char*>(MHD_get_response_header(response, first->c_str()));
  for (char* end = strchr(copy, kLineEnd[0]); end != nullptr; end = strchr(end, kLineEnd[0])) {
    *end++ = '\r';
    *end++ = '\n';
  }
}

}  // namespace

Exchange::~Exchange() {
  EndWait();
  if (sends_file_) --server_.file_replies();
  connection_->exchange = nullptr;
  server_.Forget(*this);
}

std::optional<HeadProblem> Exchange::Begin(MHD_Connection* connection, const char* method,
                                           const char* version) {
  begun_ = true;
  mhd_ = connection;
  request_.method = method;
  request_.version = version;
  request_.peer = connection_->peer;
  request_.from_function = connection_->from_function;
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
  head_cost_ = 2 * info->header_size + kPoolForEachHeader * request_.headers.size();
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
  if (gone_ || server_.ending()) return MHD_NO;
  in_callback_ = true;
  MHD_Result result = MHD_YES;
  if (!begun_) {
    if (auto problem = Begin(connection, method, version)) {
      reply_ = RefusalOfRequest(problem->status, request_.target, problem->text);
      has_reply_ = true;
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
  if (request_.has_body()) server_.NeedAnotherRun();
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
  server_.NeedAnotherRun();
  if (state_ == State::kLingering || (has_reply_ && !raw_)) {
    body_received_ += *size;
    connection_->clock.OnBodyBytes(*size, server_.loop().Now());
    *size = 0;
    if (MustReplyNow()) return ReplyNow();
    return body_received_ > kLingerBytes ? MHD_NO : MHD_YES;
  }
  untaken_.clear();
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
    if (handler_->KeepsCutBody()) untaken_.assign(data + taken, *size);
    Suspend();
  }
  return MHD_YES;
}

// The library may know later: an end that comes along with bytes raises no event of its own.
bool Exchange::ClientHasLeft() const {
  char byte;
  return recv(connection_->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void Exchange::SaveRest() {
  if (state_ != State::kBody || handler_ == nullptr || !handler_->KeepsCutBody()) return;
  if (!request_.content_length || request_.chunked) return;
  body_received_ += untaken_.size();
  handler_->OnBodyCut(std::exchange(untaken_, {}));
  // Otherwise the library may have read more than it offered, and there would be a hole.
  if (wait_ != Wait::kSuspended) return;
  std::string block(kStreamBlock, '\0');
  for (uint64_t saved = 0; saved < kMostSaved && body_received_ < *request_.content_length;) {
    const size_t left = static_cast<size_t>(
        std::min<uint64_t>(block.size(), *request_.content_length - body_received_));
    const ssize_t n = recv(connection_->fd, block.data(), left, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    body_received_ += static_cast<size_t>(n);
    saved += static_cast<size_t>(n);
    handler_->OnBodyCut(std::string_view(block.data(), static_cast<size_t>(n)));
  }
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
    Suspend();
  } else if (has_reply_) {
    return Queue();
  } else {
    AwaitReply();
  }
  return MHD_YES;
}

void Exchange::Reply(HttpReply reply) {
  if (has_reply_ || gone_) return;
  has_reply_ = true;
  reply_ = std::move(reply);
  // Others are calls, which have one; so has a call by a function's name, whatever its path.
  const auto is_id = [](const auto& header) { return EqualsIgnoreCase(header.first, "X-Call-Id"); };
  if (IsManagementPath(request_.path()) &&
      std::none_of(reply_.headers.begin(), reply_.headers.end(), is_id)) {
    reply_.headers.emplace_back("X-Call-Id", CallIdOf(request_));
  }
  if (server_.stopping()) reply_.close = true;
  if (state_ == State::kBody && !in_callback_ && MustReplyNow()) {
    // Between two pieces of body: tell the caller now, not when it has sent everything.
    (void)ReplyNow();
    if (reply_.streamed) return;
  }
  if (wait_ == Wait::kBrief) {
    StopWatching();  // it is not a long wait any more
    return server_.HasReply(*this);
  }
  Resume();
}

void Exchange::ContinueReply() {
  if (upgraded_) return upgraded_->Continue();
  raw_ ? raw_->Continue() : Resume();
}

void Exchange::ContinueBody() {
  if (upgraded_) return upgraded_->Continue();
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
  if (wait_ == Wait::kNone)
    connection_->clock.Enter(ConnectionClock::Phase::kLinger, server_.loop().Now());
}

void Exchange::OnRawEnd(RawReply::End end) {
  if (end == RawReply::End::kBroken) {
    BreakOff();
    return Leave();
  }
  shutdown(connection_->fd, SHUT_WR);
  Linger();
  // The library reads no more, and a request may be on its way already.
  if (state_ == State::kEnd) server_.last_words().Linger(connection_->fd);
  server_.Bury(std::move(handler_));
  Resume();
}

// The library has sent the head. The socket is ours now, and is watched by our own loop.
void Exchange::OnUpgrade(void* self, MHD_Connection*, void*, const char* received, size_t size,
                         MHD_socket, MHD_UpgradeResponseHandle* handle) {
  auto& exchange = *static_cast<Exchange*>(self);
  exchange.upgrade_ = handle;
  exchange.BeginUpgraded(size == 0 ? std::string() : std::string(received, size));
}

void Exchange::BeginUpgraded(std::string received) {
  // As any reply: it may wait for the function, but not for a client that takes nothing.
  connection_->clock.Enter(ConnectionClock::Phase::kReply, server_.loop().Now());
  upgraded_ = std::make_unique<UpgradedConnection>(
      server_.loop(), UpgradedConnection::Client{connection_->fd, std::move(received)}, *handler_,
      [this] {
        shutdown(connection_->fd, SHUT_WR);
        server_.last_words().Linger(connection_->fd);
        EndUpgraded();
      });
  if (server_.stopping() || !upgraded_->Start().ok()) EndUpgraded();
}

void Exchange::EndUpgraded() {
  upgraded_->Stop();
  server_.Bury(std::move(handler_));
  if (upgrade_ == nullptr) return;
  (void)MHD_upgrade_action(std::exchange(upgrade_, nullptr), MHD_UPGRADE_ACTION_CLOSE);
  server_.NeedRun();
}

MHD_Response* Exchange::MakeResponse() {
  if (!reply_.upgrade.empty()) {
    MHD_Response* response = MHD_create_response_for_upgrade(&Exchange::OnUpgrade, this);
    if (response != nullptr)
      (void)MHD_add_response_header(response, "Upgrade", reply_.upgrade.c_str());
    return response;
  }
  if (reply_.streamed) {
    const uint64_t size = reply_.stream_size.value_or(MHD_SIZE_UNKNOWN);
    const auto read = [](void* self, uint64_t, char* buffer, size_t capacity) {
      return static_cast<Exchange*>(self)->ReadBody(buffer, capacity);
    };
    const size_t block = static_cast<size_t>(std::clamp<uint64_t>(size, 1, kStreamBlock));
    return MHD_create_response_from_callback(size, block, read, this, nullptr);
  }
  if (reply_.file.valid()) {
    sends_file_ = true;
    ++server_.file_replies();
    return MHD_create_response_from_fd64(reply_.file_size, reply_.file.Release());
  }
  // The body lives in this exchange or its handler, which outlive the response.
  const std::string_view body = reply_.text();
  return MHD_create_response_from_buffer(body.size(), const_cast<char*>(body.data()),
                                         MHD_RESPMEM_PERSISTENT);
}

// A head that announces chunks and has none behind it: the library would send the last one.
bool Exchange::EndsWithItsHead() const {
  const bool chunked = reply_.streamed && !reply_.stream_size;
  return chunked && (request_.method == "HEAD" || reply_.status == 304);
}

// The library has one piece of memory for a request's head, which takes twice its size, and for the
// head of the reply, and drops the connection without a word when that is too small for both.
bool Exchange::HeadFits() const {
  constexpr size_t kOfItsOwn = 1024;
  constexpr size_t kLineEnds = 4;
  size_t told = kOfItsOwn;
  for (const auto& [name, value] : reply_.headers) told += name.size() + value.size() + kLineEnds;
  return head_cost_ + told <= server_.pool_bytes();
}

MHD_Result Exchange::Queue() {
  EndWait();
  server_.NeedAnotherRun();
  const bool by_the_library = reply_.file.valid() || !reply_.upgrade.empty();
  if (EndsWithItsHead() || (!by_the_library && !HeadFits())) {
    (void)ReplyNow();
    if (raw_->ended()) return MHD_NO;
    Suspend();
    return MHD_YES;
  }
  MHD_Response* response = MakeResponse();
  if (response == nullptr) return MHD_NO;
  AddHeaders(reply_.headers, response);
  if (reply_.upgrade.empty() && (reply_.close || server_.stopping()))
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
  server_.NeedAnotherRun();
  if (gone_) return EndBody(MHD_CONTENT_READER_END_WITH_ERROR);
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
      return EndBody(MHD_CONTENT_READER_END_OF_STREAM);
    case ReadState::kAborted:
      BreakOff();
      break;
  }
  return EndBody(MHD_CONTENT_READER_END_WITH_ERROR);
}

ssize_t Exchange::EndBody(ssize_t how) {
  const bool goes_on = how == MHD_CONTENT_READER_END_OF_STREAM && !reply_.stream_size &&
                       request_.version == "HTTP/1.1";
  if (!goes_on) server_.EndsWithItsBody(*connection_, mhd_);
  return how;
}

// Where the end of the connection is the end of the reply, a broken one must not end like that.
// Closing is no help: the library shuts the socket down first. This resets it at once.
void Exchange::BreakOff() const {
  if (!reply_.streamed || reply_.stream_size || request_.version == "HTTP/1.1") return;
  sockaddr nobody = {};
  nobody.sa_family = AF_UNSPEC;
  (void)connect(connection_->fd, &nobody, sizeof nobody);
}

// In the final call only, where the library asks again as long as there is no reply.
void Exchange::AwaitReply() {
  if (wait_ == Wait::kBrief) return;
  if (!server_.MayWaitBriefly()) return Suspend();
  wait_ = Wait::kBrief;
  ++server_.brief_waits();
  leaving_ = server_.leavers().Begin(connection_->fd, *this);
}

void Exchange::OnLongWait() {
  if (wait_ != Wait::kBrief) return;
  --server_.brief_waits();
  wait_ = Wait::kSuspended;
  MHD_suspend_connection(mhd_);
  server_.NeedRun();  // what the brief waits hid from us
}

void Exchange::Suspend() {
  if (wait_ == Wait::kSuspended) return;
  wait_ = Wait::kSuspended;
  connection_->clock.Enter(ConnectionClock::Phase::kOurs, server_.loop().Now());
  // A raw reply watches the socket itself.
  if (!raw_) leaving_ = server_.leavers().Begin(connection_->fd, *this);
  MHD_suspend_connection(mhd_);
}

void Exchange::Resume() {
  if (wait_ != Wait::kSuspended) return;
  EndWait();
  using Phase = ConnectionClock::Phase;
  // With a reply to it as well the rest of a body is the client's to send.
  const bool awaits_body = !has_reply_ || request_.has_body();
  const bool in_body = state_ == State::kBody || (state_ == State::kHead && awaits_body);
  const Phase phase = state_ == State::kLingering  ? Phase::kLinger
                      : in_body                    ? Phase::kBody
                      : state_ == State::kReplying ? Phase::kReply
                                                   : Phase::kOurs;
  connection_->clock.Enter(phase, server_.loop().Now());
  MHD_resume_connection(mhd_);
  server_.NeedRun();
}

void Exchange::Hold() {
  held_ = true;
  MHD_suspend_connection(mhd_);
}

void Exchange::Release() {
  if (!std::exchange(held_, false)) return;
  MHD_resume_connection(mhd_);
  server_.NeedRun();
}

void Exchange::EndWait() {
  if (wait_ == Wait::kBrief) --server_.brief_waits();
  wait_ = Wait::kNone;
  StopWatching();
}

void Exchange::StopWatching() {
  if (leaving_) server_.leavers().End(*std::exchange(leaving_, std::nullopt));
}

// The client is gone, or has to go. The handler's destruction cancels whatever runs for it.
void Exchange::Leave() {
  if (!gone_) SaveRest();
  gone_ = true;
  if (upgraded_) {
    shutdown(connection_->fd, SHUT_RDWR);
    return EndUpgraded();
  }
  if (raw_) raw_->Stop();
  shutdown(connection_->fd, SHUT_RDWR);
  Resume();
  server_.NeedRun();  // a brief wait is asked again, and answered with the end
  // While the library sends, the body may still be the handler's.
  if (state_ != State::kReplying || reply_.streamed) server_.Bury(std::move(handler_));
}

}  // namespace pulga::http_server
