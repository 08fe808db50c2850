#include "runtime/http_invocation.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "runtime/instance.h"
#include "runtime/pipe_io.h"
#include "runtime/pool.h"
#include "runtime/request_head.h"

namespace pulga {
namespace {

constexpr size_t kChunkBytes = 16 * 1024;  // of a request body in chunked framing
constexpr uint32_t kMaxInterimAnswers = 16;
constexpr Duration kLinger = std::chrono::milliseconds(100);
constexpr Duration kFirstAgain = std::chrono::milliseconds(5);
constexpr Duration kLastAgain = std::chrono::milliseconds(100);
constexpr Duration kLastWords = std::chrono::seconds(10);  // of a function, to a client that ended

// A kept-alive connection the server has closed, before epoll told us.
bool IsStale(const UpstreamConnection& connection) {
  char byte;
  const ssize_t n = recv(connection.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n >= 0 || (errno != EAGAIN && errno != EINTR);
}

IoResult Recv(int fd, char* buffer, size_t capacity) {
  ssize_t n;
  do {
    n = recv(fd, buffer, capacity, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n > 0) return {IoState::kSome, static_cast<size_t>(n)};
  if (n < 0 && errno == EAGAIN) return {IoState::kBlocked, 0};
  return {IoState::kClosed, n < 0 ? size_t{1} : size_t{0}};  // size 1: not a clean end
}

}  // namespace

HttpInvocation::~HttpInvocation() {
  Abandon(AfterCall::kCancelled);
  if (capacity_ == BufferPool::kBytes) context_.buffers.Give(std::move(buffer_));
}

// --- instance and connection

void HttpInvocation::OnInstance(Instance& granted, StartKind start) {
  BeginFunction(granted, start);
  replayable_ = !granted.answered && pending_.size() == body_bytes_;
  if (replayable_) replay_ = pending_;
  Connect(Upstream::Want::kAny);
}

void HttpInvocation::Connect(Upstream::Want want) {
  // What cannot be repeated is not risked on a connection that is dead already.
  const bool careful = request_.has_body || !IsIdempotent(request_.method);
  std::unique_ptr<UpstreamConnection> got;
  do {
    got = instance->upstream->Acquire(this, want);
  } while (got != nullptr && careful && got->reuse == Reuse::kReused && IsStale(*got));
  waiting_for_connection_ = got == nullptr;
  if (got != nullptr) OnConnection(std::move(got));
}

void HttpInvocation::OnConnection(std::unique_ptr<UpstreamConnection> connection) {
  waiting_for_connection_ = false;
  connection_ = std::move(connection);
  readable_ = false;
  if (connection_->peer_closed) return OnPeerEnd();
  wire_ = BuildRequestHead(request_, context_.clock.WallTime());
  if (!pending_.empty()) Frame(std::exchange(pending_, std::string()), &wire_);
  if (request_.has_body && !request_.content_length && body_ended_) wire_ += "0\r\n\r\n";
  // The first bytes of a small body follow at once: one packet for both.
  const bool cork = !body_ended_ && body_bytes_ == 0 && request_.content_length &&
                    *request_.content_length > 0 && *request_.content_length <= kMaxHeldBytes;
  if (!cork) Flush();
}

void HttpInvocation::OnMoved() {
  ForgetGrant();
  connection_.reset();
  context_.loop.Cancel(std::exchange(again_timer_, 0));
  waiting_for_connection_ = false;
  wire_.clear();
}

void HttpInvocation::CloseIo() {
  context_.loop.Cancel(std::exchange(linger_timer_, 0));
  context_.loop.Cancel(std::exchange(again_timer_, 0));
  context_.loop.Cancel(std::exchange(silence_timer_, 0));
  replay_.clear();
  if (waiting_for_connection_ && instance != nullptr) instance->upstream->Cancel(this);
  waiting_for_connection_ = false;
  connection_.reset();
  pending_.clear();
  wire_.clear();
  body_unwanted_ = true;
}

void HttpInvocation::OnUpstream(uint32_t events) {
  if ((events & ~uint32_t{EPOLLOUT}) != 0) readable_ = true;
  if ((events & EPOLLOUT) != 0 && (!wire_.empty() || write_refused_)) Flush();
  if (connection_ == nullptr || !readable_) return;
  if (head_told()) {
    Notify(Notifier::kReadable);
  } else {
    Drive();
  }
}

// --- the request

void HttpInvocation::Frame(std::string_view bytes, std::string* wire) const {
  if (request_.content_length) {
    wire->append(bytes);
    return;
  }
  char size[24];
  const int n = snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  wire->append(size, static_cast<size_t>(n)).append(bytes).append("\r\n");
}

void HttpInvocation::Flush() {
  while (connection_ != nullptr && !wire_.empty()) {
    const SendResult sent = SendTwo(connection_->fd(), wire_, {});
    if (sent.state == SendResult::State::kBlocked) return;
    if (sent.state == SendResult::State::kBroken) {
      // Nobody reads the request any more, but an answer may have been sent before.
      body_unwanted_ = true;
      wire_.clear();
      readable_ = true;
      if (!head_told()) Drive();
      return;
    }
    request_begun_ = true;
    wire_.erase(0, sent.size);
  }
  if (std::exchange(write_refused_, false)) Notify(Notifier::kWritable);
}

// Content-Length framing: head and body leave in one call, nothing is copied.
size_t HttpInvocation::SendDirect(std::string_view bytes) {
  const SendResult sent = SendTwo(connection_->fd(), wire_, bytes);
  if (sent.state == SendResult::State::kBlocked) return 0;
  if (sent.state == SendResult::State::kBroken) {
    body_unwanted_ = true;
    wire_.clear();
    return bytes.size();
  }
  request_begun_ = true;
  const size_t of_wire = std::min(sent.size, wire_.size());
  wire_.erase(0, of_wire);
  return sent.size - of_wire;
}

size_t HttpInvocation::Write(std::string_view bytes) {
  const Notifier::FrontCall scope(context_.notifier);
  if (ended() || body_unwanted_ || body_ended_ || lingering_) return bytes.size();
  const size_t offered = bytes.size();
  bytes = Announced(bytes);
  if (bytes.empty()) return offered;
  const size_t wanted = bytes.size();
  size_t taken = 0;
  if (connection_ == nullptr) {
    bytes = bytes.substr(0, kMaxHeldBytes - std::min(kMaxHeldBytes, pending_.size()));
    pending_ += bytes;
    taken = bytes.size();
  } else if (request_.content_length || switched_) {
    taken = SendDirect(bytes);
  } else {
    Flush();
    if (wire_.empty() && !body_unwanted_) {
      taken = std::min(bytes.size(), kChunkBytes);
      Frame(bytes.substr(0, taken), &wire_);
      Flush();
    }
  }
  if (switched_ && taken > 0) spoken_ = context_.clock.Now();
  KeepForReplay(bytes.substr(0, taken));
  if (ended() || body_unwanted_ || !CountBody(taken)) return offered;
  write_refused_ = taken < wanted;
  return taken;
}

void HttpInvocation::EndBody() {
  const Notifier::FrontCall scope(context_.notifier);
  if (body_ended_) return;
  body_ended_ = true;
  if (ended() || body_unwanted_ || lingering_) return;
  if (!CheckBodyEnd()) return;
  if (connection_ == nullptr) return;
  if (switched_) {
    shutdown(connection_->fd(), SHUT_WR);
    return AwaitSilence();
  }
  if (!request_.content_length) wire_ += "0\r\n\r\n";
  Flush();
}

// --- the answer

// Everything up to telling the head: reads as long as there is something.
void HttpInvocation::Drive() {
  while (connection_ != nullptr && !head_told() && !complete_) {
    const size_t before = end_;
    if (!Receive()) return;
    if (!head_done_) {
      if (!ParseHead()) continue;
      OnFinalHead();
    } else if (answer_.framing == BodyFraming::kLength && end_ - begin_ >= body_left_) {
      whole_ = true;
      Complete();
    } else if (answer_.framing == BodyFraming::kUntilClose) {
      if (CountOutput(end_ - before) && end_ == capacity_) TellHead();
    }
  }
}

bool HttpInvocation::Receive() {
  if (!readable_) {
    // A body that ends with the connection: more may take for ever, so it is streamed.
    if (head_done_ && answer_.framing == BodyFraming::kUntilClose) TellHead();
    return false;
  }
  if (end_ == capacity_) {
    const size_t grown = capacity_ == 0 ? BufferPool::kBytes : capacity_ * 2;
    BufferPool::Buffer bigger =
        capacity_ == 0 ? context_.buffers.Take() : BufferPool::Buffer(new char[grown]);
    if (end_ != 0) memcpy(bigger.get(), buffer_.get(), end_);
    if (capacity_ == BufferPool::kBytes) context_.buffers.Give(std::move(buffer_));
    buffer_ = std::move(bigger);
    capacity_ = grown;
  }
  const IoResult got = Recv(connection_->fd(), buffer_.get() + end_, capacity_ - end_);
  if (got.state == IoState::kClosed) {
    const bool clean = got.size == 0;
    if (clean && head_done_ && answer_.framing == BodyFraming::kUntilClose) {
      whole_ = true;
      Complete();
    } else {
      OnPeerEnd();
    }
    return false;
  }
  if (got.state == IoState::kBlocked) {
    readable_ = false;
    return Receive();
  }
  // Less than asked for: all there was. An end of file behind it still has to be read.
  if (got.size < capacity_ - end_ && !connection_->peer_closed) readable_ = false;
  answer_begun_ = true;
  end_ += got.size;
  return true;
}

// True: the final head is there.
bool HttpInvocation::ParseHead() {
  const RequestMethod method = !request_.upgrade.empty()   ? RequestMethod::kUpgrade
                               : request_.method == "HEAD" ? RequestMethod::kHead
                                                           : RequestMethod::kOther;
  for (;;) {
    const std::string_view bytes(buffer_.get() + begin_, end_ - begin_);
    if (bytes.empty()) return false;
    const HeadParse parse = ParseResponseHead(bytes, seen_, method, &answer_);
    if (parse.state == ParseState::kBad) {
      OnBadResponse(parse.problem);
      return false;
    }
    seen_ = bytes.size();
    if (parse.state == ParseState::kIncomplete) return false;
    begin_ += parse.size;
    if (answer_.status >= 200 || answer_.status == 101) return true;
    seen_ = 0;
    if (++interim_ > kMaxInterimAnswers) {
      OnBadResponse("too many interim answers");
      return false;
    }
  }
}

void HttpInvocation::KeepForReplay(std::string_view bytes) {
  if (!replayable_) return;
  replayable_ = replay_.size() + bytes.size() <= kMaxHeldBytes;
  if (replayable_) {
    replay_ += bytes;
  } else {
    replay_.clear();
  }
}

// An of-watchdog listens before the server behind it does, and answers so until that listens, too.
bool HttpInvocation::IsColdWatchdog() const {
  const bool empty = answer_.framing == BodyFraming::kNone ||
                     (answer_.framing == BodyFraming::kLength && answer_.content_length == 0U);
  if (answer_.status != 500 || !empty) return false;
  return std::any_of(answer_.headers.begin(), answer_.headers.end(), [](const auto& header) {
    return EqualsIgnoreCase(header.first, "X-OpenFaaS-Internal") && header.second == "of-watchdog";
  });
}

bool HttpInvocation::MayAskAgain() const {
  if (!replayable_ || instance == nullptr || instance->answered) return false;
  return context_.clock.Now() - instance->ready <= version_->spec.limits.start_timeout;
}

void HttpInvocation::AskAgainLater() {
  connection_.reset();
  answer_ = UpstreamHead();
  answer_begun_ = readable_ = request_begun_ = body_unwanted_ = false;
  begin_ = end_ = seen_ = 0;
  interim_ = 0;
  wire_.clear();
  pending_ = replay_;
  again_delay_ = std::clamp(again_delay_ * 2, kFirstAgain, kLastAgain);
  again_timer_ = context_.loop.CallAfter(again_delay_, [this] {
    const Notifier::Turn turn(context_.notifier);
    again_timer_ = 0;
    Connect(Upstream::Want::kFresh);
  });
  if (std::exchange(write_refused_, false)) Notify(Notifier::kWritable);
}

void HttpInvocation::OnFinalHead() {
  const bool cold = IsColdWatchdog();
  if (cold && MayAskAgain()) return AskAgainLater();
  if (!cold && instance != nullptr) instance->answered = true;
  head_done_ = true;
  if (answer_.status == 101) return Switch();
  const size_t have = end_ - begin_;
  const uint64_t limit = version_->spec.limits.output_bytes;
  switch (answer_.framing) {
    case BodyFraming::kNone:
      surplus_ = have > 0;
      end_ = begin_;
      whole_ = true;
      return Complete();
    case BodyFraming::kLength:
      body_left_ = *answer_.content_length;
      if (limit != 0 && body_left_ > limit) {
        return Fail({OutcomeKind::kOutputLimit, 0, ""}, AfterCall::kCancelled);
      }
      if (have >= body_left_) {
        whole_ = true;
        return Complete();
      }
      if (begin_ + body_left_ <= capacity_) return;  // small: told when it is whole
      body_left_ -= have;
      return TellHead();
    case BodyFraming::kChunked:
      if (!Decode() || complete_) return;
      return TellHead();
    case BodyFraming::kUntilClose:
      if (CountOutput(have) && end_ == capacity_) TellHead();
      return;
  }
}

void HttpInvocation::Switch() {
  if (!EqualsIgnoreCase(answer_.upgrade, request_.upgrade)) {
    return OnBadResponse("it switches to another protocol than the one asked for");
  }
  if (!RequestSent()) return OnBadResponse("it switched protocols before it had the request");
  switched_ = true;
  body_ended_ = false;
  request_.content_length.reset();
  ClearTimeout();
  AwaitSilence();
  if (CountOutput(end_ - begin_)) TellHead();
}

void HttpInvocation::AwaitSilence() {
  spoken_ = context_.clock.Now();
  context_.loop.Cancel(std::exchange(silence_timer_, 0));
  OnSilence();
}

// Bytes do not set the timer anew; it asks for the last of them.
void HttpInvocation::OnSilence() {
  const Duration timeout = version_->spec.limits.timeout;
  const TimePoint end = spoken_ + (body_ended_ ? std::min(timeout, kLastWords) : timeout);
  if (context_.clock.Now() >= end) {
    // Nobody's fault: it says nothing about the instance.
    return Fail({OutcomeKind::kTimedOut, 0, ""}, AfterCall::kCancelled);
  }
  silence_timer_ = context_.loop.CallAt(end, [this] {
    const Notifier::Turn turn(context_.notifier);
    silence_timer_ = 0;
    OnSilence();
  });
}

// Decodes what is in the buffer. False: malformed, or over the limit.
bool HttpInvocation::Decode() {
  const size_t raw = end_ - begin_;
  const ChunkedDecoder::Step step = chunks_.Decode(buffer_.get() + begin_, raw);
  end_ = begin_ + step.produced;
  return OnDecoded(step, raw);
}

bool HttpInvocation::OnDecoded(const ChunkedDecoder::Step& step, size_t raw) {
  if (step.state == ParseState::kBad) {
    OnBadResponse("malformed chunked framing");
    return false;
  }
  if (!CountOutput(step.produced)) return false;
  if (step.state == ParseState::kComplete) {
    surplus_ = step.consumed < raw;
    whole_ = !head_told();
    Complete();
  }
  return true;
}

void HttpInvocation::TellHead() {
  StampFunction();
  head_.status = answer_.status;
  head_.headers = std::move(answer_.headers);
  head_.upgrade = answer_.upgrade;
  head_.final_outcome_known = complete_;
  const bool bodiless = request_.method == "HEAD" || answer_.status == 304;
  if (whole_ && !bodiless) {
    head_.content_length = end_ - begin_;
  } else if (bodiless || answer_.framing == BodyFraming::kLength) {
    head_.content_length = answer_.content_length;
  }
  NotifyHead();
}

// The last byte is there: the connection goes back before anything else happens.
void HttpInvocation::Complete() {
  complete_ = true;
  if (whole_ && answer_.framing == BodyFraming::kLength) {
    surplus_ = end_ - begin_ > *answer_.content_length;
    end_ = begin_ + static_cast<size_t>(*answer_.content_length);
  }
  const bool keep = answer_.after == AfterResponse::kKeepAlive && RequestSent() &&
                    !body_unwanted_ && !surplus_ && !connection_->peer_closed;
  if (keep && instance != nullptr) instance->upstream->Return(std::move(connection_));
  connection_.reset();
  Finish({OutcomeKind::kOk, 0, ""}, AfterCall::kReturn);
  if (head_told()) return;
  TellHead();
}

bool HttpInvocation::Repeatable() const {
  if (repeated_ || answer_begun_ || instance == nullptr) return false;
  if (connection_->reuse != Reuse::kReused || request_.has_body) return false;
  return !request_begun_ || IsIdempotent(request_.method);
}

// The connection ended where the answer did not.
void HttpInvocation::OnPeerEnd() {
  if (Repeatable()) {
    repeated_ = true;
    request_begun_ = false;
    body_unwanted_ = false;
    connection_.reset();
    return Connect(Upstream::Want::kFresh);
  }
  OnBroken();
}

void HttpInvocation::OnBroken() {
  connection_.reset();
  if (death_) {
    return Fail(*death_, AfterCall::kDead);
  }
  lingering_ = true;
  linger_timer_ = context_.loop.CallAfter(kLinger, [this] {
    const Notifier::Turn turn(context_.notifier);
    linger_timer_ = 0;
    OnBadResponse(answer_begun_ ? "the connection was lost in mid-answer"
                                : "the connection was closed without an answer");
  });
}

// What the server sent before it died still counts: it is read first.
void HttpInvocation::OnInstanceExit(Instance& dead, const InstanceExit& exit,
                                    const SlotTimes& times) {
  (void)dead;
  (void)times;
  instance = nullptr;
  pool = nullptr;
  if (ended()) return;
  Outcome outcome = OutcomeOf(exit);
  if (outcome.kind == OutcomeKind::kOk) {
    outcome.kind = OutcomeKind::kBadResponse;
    if (facts.remark.empty()) facts.remark = "the server exited with code 0 before it answered";
  }
  if (connection_ == nullptr) return Fail(std::move(outcome), AfterCall::kDead);
  death_ = std::move(outcome);
  readable_ = true;
  if (head_told()) return Notify(Notifier::kReadable);
  Drive();
  if (ended() || head_told()) return;
  if (connection_ != nullptr) Fail(*death_, AfterCall::kDead);
}

std::optional<std::string_view> HttpInvocation::WholeBody() const {
  if (!head_told()) return std::nullopt;
  if (head_.status == 0) return std::string_view();
  if (!whole_) return std::nullopt;
  return std::string_view(buffer_.get() + begin_, end_ - begin_);
}

ReadResult HttpInvocation::NoMore() const {
  if (complete_) return {ReadState::kEnd, 0};
  if (ended())
    return {outcome_.kind == OutcomeKind::kOk ? ReadState::kEnd : ReadState::kAborted, 0};
  return {ReadState::kWait, 0};
}

ReadResult HttpInvocation::Read(char* buffer, size_t capacity) {
  const Notifier::FrontCall scope(context_.notifier);
  if (!head_told() || capacity == 0) return {ReadState::kWait, 0};
  if (head_.status == 0) return {ReadState::kEnd, 0};
  if (ended() && outcome_.kind != OutcomeKind::kOk) return {ReadState::kAborted, 0};
  if (begin_ < end_) return Copy(buffer, capacity);
  if (complete_ || connection_ == nullptr || !readable_) return NoMore();
  return answer_.framing == BodyFraming::kChunked ? ReadChunked(buffer, capacity)
                                                  : ReadDirect(buffer, capacity);
}

ReadResult HttpInvocation::Copy(char* buffer, size_t capacity) {
  const size_t n = std::min(capacity, end_ - begin_);
  memcpy(buffer, buffer_.get() + begin_, n);
  begin_ += n;
  if (switched_) spoken_ = context_.clock.Now();
  return {ReadState::kData, n};
}

// Past the first buffer the bytes go from the socket to the front's memory, chunks decoded in
// place.
ReadResult HttpInvocation::ReadDirect(char* buffer, size_t capacity) {
  const bool length = answer_.framing == BodyFraming::kLength;
  if (length) capacity = static_cast<size_t>(std::min<uint64_t>(capacity, body_left_));
  const IoResult got = Recv(connection_->fd(), buffer, capacity);
  if (got.state == IoState::kBlocked) readable_ = false;
  if (got.state == IoState::kClosed) {
    if (!length && got.size == 0) {
      Complete();
    } else {
      OnPeerEnd();
    }
  }
  if (got.state != IoState::kSome) return NoMore();
  if (!CountOutput(got.size)) return {ReadState::kAborted, 0};
  if (switched_) spoken_ = context_.clock.Now();
  if (length) body_left_ -= got.size;
  if (length && body_left_ == 0) Complete();
  return {ReadState::kData, got.size};
}

ReadResult HttpInvocation::ReadChunked(char* buffer, size_t capacity) {
  while (connection_ != nullptr && readable_ && !complete_) {
    const IoResult got = Recv(connection_->fd(), buffer, capacity);
    if (got.state == IoState::kBlocked) readable_ = false;
    if (got.state == IoState::kClosed) OnPeerEnd();
    if (got.state != IoState::kSome) return NoMore();
    const ChunkedDecoder::Step step = chunks_.Decode(buffer, got.size);
    if (!OnDecoded(step, got.size)) return {ReadState::kAborted, 0};
    if (step.produced > 0) return {ReadState::kData, step.produced};
  }
  return NoMore();
}

}  // namespace pulga
