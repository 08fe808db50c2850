#include "runtime/frames_channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <utility>

#include "base/close_apart.h"
#include "base/sys.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83  // Linux 6.16
#endif

namespace pulga {
namespace {

constexpr size_t kMostBacklog = 256 * 1024;             // of bodies
constexpr size_t kFullBacklog = 1024 * 1024;            // with heads
constexpr size_t kLeastGrant = kFramesReplyWindow / 2;  // so that few credits serve many bytes
constexpr size_t kMostOpen = 0xffff;
// In how many pieces a function may grant credit, as HTTP/2 servers bound WINDOW_UPDATE: so many
// for nothing, for each call and each frame of body, and one more for so many bytes of body.
constexpr uint64_t kFreeCredits = 1024;
constexpr uint64_t kCreditsPerFrame = 16;
constexpr uint64_t kBytesPerCredit = 16;
constexpr int kReadsPerTurn = 8;  // then others have their turn

Status SetOption(const UniqueFd& fd, int option, int value) {
  const int set = PULGA_SYS(setsockopt, fd.get(), SOL_SOCKET, option, &value, sizeof value);
  return set == 0 ? OkStatus() : Status(LastError("setsockopt"));
}

bool HasUnread(const UniqueFd& fd) {
  char byte;
  return recv(fd.get(), &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) > 0;
}

}  // namespace

Result<FramesChannel::Pair> FramesChannel::MakePair() {
  int fds[2];
  if (PULGA_SYS(socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return LastError("socketpair");
  }
  return Pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

FramesChannel::FramesChannel(EventLoop& loop, Notifier& notifier, BufferPool& buffers)
    : loop_(loop), notifier_(notifier), buffers_(buffers) {}

FramesChannel::~FramesChannel() { Close(); }

Status FramesChannel::Open(UniqueFd fd, const Options& options, Events events) {
  fd_ = std::move(fd);
  patience_ = options.patience;
  most_unanswered_ = kMostUnansweredCancels + options.calls;
  events_ = std::move(events);
  descriptors_ =
      SetOption(fd_, SO_PASSRIGHTS, 0).ok() ? Descriptors::kRefused : Descriptors::kLookedFor;
  // Out of band it would be passed over by some reads, and be waiting all the same.
  PULGA_RETURN_IF_ERROR(SetOption(fd_, SO_OOBINLINE, 1));
  watched_ = EPOLLIN;
  PULGA_RETURN_IF_ERROR(loop_.Watch(fd_.get(), watched_, [this, &notifier = notifier_](uint32_t e) {
    const Notifier::Turn turn(notifier);
    OnReady(e);
  }));
  AppendHello({kFramesVersion, kFramesReplyWindow, options.calls}, &out_);
  Flush();
  return OkStatus();
}

void FramesChannel::Close() {
  loop_.Cancel(std::exchange(flush_timer_, 0));
  loop_.Cancel(std::exchange(fail_timer_, 0));
  loop_.Cancel(std::exchange(stall_timer_, 0));
  if (!fd_.valid()) return;
  if (watched_ != 0) loop_.Unwatch(fd_.get());
  (void)shutdown(fd_.get(), SHUT_RD);  // nothing comes any more
  if (descriptors_ == Descriptors::kLookedFor && HasUnread(fd_)) {
    CloseApart(std::move(fd_));
  } else {
    fd_.Reset();
  }
  out_ = std::string();
  out_sent_ = 0;
  calls_ = std::vector<OpenCall>();
  free_ = std::vector<uint16_t>();
  open_ = unanswered_ = 0;
}

// --- the table of calls

FramesChannel::OpenCall* FramesChannel::Find(uint32_t id) {
  const size_t index = id & 0xffff;
  return id != 0 && index < calls_.size() && calls_[index].id == id ? &calls_[index] : nullptr;
}

void FramesChannel::Free(OpenCall& call) {
  if (call.cancelled) --unanswered_;
  --open_;
  free_.push_back(static_cast<uint16_t>(call.id & 0xffff));
  call.id = 0;
  call.user = nullptr;
}

uint32_t FramesChannel::Begin(FramesUser& user, std::string_view head, FrameEnd end) {
  if (!fd_.valid() || send_broken_ || told_end_ || !reader_.greeted()) return 0;
  if (free_.empty()) {
    if (calls_.size() == kMostOpen) return 0;
    free_.push_back(static_cast<uint16_t>(calls_.size()));
    calls_.emplace_back();
  }
  const uint16_t index = free_.back();
  free_.pop_back();
  OpenCall& call = calls_[index];
  const uint16_t life = ++call.life == 0 ? ++call.life : call.life;
  call = OpenCall();
  call.life = life;
  call.user = &user;
  call.id = static_cast<uint32_t>(life) << 16 | index;
  call.credit = request_window_;
  call.window = kFramesReplyWindow;
  ++open_;
  credits_earned_ += kCreditsPerFrame;
  AppendFrame(FrameType::kHead, call.id, end, head, &out_);
  Leave(end);
  return call.id;
}

size_t FramesChannel::SendBody(uint32_t id, std::string_view bytes, FrameEnd end) {
  OpenCall* call = Find(id);
  if (call == nullptr) return bytes.size();
  size_t taken = 0;
  do {
    const size_t room = kMostBacklog - std::min(kMostBacklog, backlog());
    const size_t n = std::min({bytes.size() - taken, size_t{call->credit}, kMaxFramePayload, room});
    if (n == 0 && taken < bytes.size()) {
      call->wants_room = true;
      wants_room_ |= call->credit > 0;
      break;
    }
    const FrameEnd last = taken + n == bytes.size() ? end : FrameEnd::kMore;
    AppendFrame(FrameType::kBody, id, last, bytes.substr(taken, n), &out_);
    call->credit -= static_cast<uint32_t>(n);
    credits_earned_ += kCreditsPerFrame + n / kBytesPerCredit;
    taken += n;
  } while (taken < bytes.size());
  Leave(taken == bytes.size() ? end : FrameEnd::kMore);
  return taken;
}

void FramesChannel::Cancel(uint32_t id) {
  OpenCall* call = Find(id);
  if (call == nullptr || call->cancelled) return;
  call->user = nullptr;
  call->cancelled = true;
  ++unanswered_;
  AppendFrame(FrameType::kCancel, id, FrameEnd::kMore, {}, &out_);
  if (unanswered_ > most_unanswered_) FailLater("it does not end cancelled calls");
  FlushLater();
}

void FramesChannel::Grant(uint32_t id, size_t bytes) {
  OpenCall* call = Find(id);
  if (call == nullptr) return;
  call->owed += static_cast<uint32_t>(bytes);
  if (call->owed < kLeastGrant) return;
  AppendCredit(id, call->owed, &out_);
  call->window += std::exchange(call->owed, 0);
  FlushLater();
}

// --- what the function says

const char* FramesChannel::OnHello(const FramesHello& hello) {
  request_window_ = hello.window;
  if (events_.ready) events_.ready();
  return Goes();
}

const char* FramesChannel::OnHead(uint32_t id, std::string_view payload, FrameEnd end) {
  OpenCall* call = Find(id);
  if (call == nullptr) return "a head for a call that is not open";
  if (std::exchange(call->replied, true)) return "a second head for one call";
  FramesUser* user = call->user;
  if (end == FrameEnd::kEnd) {
    Free(*call);
  } else if (user != nullptr) {
    paused_.push_back(id);
  }
  if (user != nullptr) user->OnReplyHead(payload, end);
  return Goes();
}

const char* FramesChannel::OnBody(uint32_t id, std::string_view bytes, FrameEnd end) {
  OpenCall* call = Find(id);
  if (call == nullptr) return "a body for a call that is not open";
  if (!call->replied) return "a body before its head";
  // They would cost no credit, and could come for ever.
  if (bytes.empty() && end == FrameEnd::kMore) return "an empty body that is not the end";
  if (bytes.size() > call->window) return "more of a body than it had credit for";
  call->window -= static_cast<uint32_t>(bytes.size());
  FramesUser* user = call->user;
  if (end == FrameEnd::kEnd) Free(*call);
  if (user != nullptr) user->OnReplyBody(bytes, end);
  return Goes();
}

// A call whose end it has sent may be granted more by what it said before: that is no mistake.
const char* FramesChannel::OnCredit(uint32_t id, uint32_t bytes) {
  OpenCall* call = Find(id);
  if (call == nullptr) return "credit for a call that is not open";
  if (bytes == 0 || bytes > kMaxFramesWindow - std::min(kMaxFramesWindow, call->credit)) {
    return "credit out of range";
  }
  if (++credits_ > kFreeCredits + credits_earned_) {
    return "it grants credit in more pieces than the bodies sent to it are worth";
  }
  call->credit += bytes;
  if (call->user != nullptr && std::exchange(call->wants_room, false)) call->user->OnRoom();
  return Goes();
}

const char* FramesChannel::OnCancel(uint32_t id) {
  OpenCall* call = Find(id);
  if (call == nullptr) return "a cancel for a call that is not open";
  FramesUser* user = call->user;
  Free(*call);
  if (user != nullptr) user->OnGivenUp();
  return Goes();
}

// --- reading

void FramesChannel::OnReady(uint32_t events) {
  if ((events & EPOLLOUT) != 0) FlushAndTell();
  if ((events & ~uint32_t{EPOLLOUT}) == 0 || !fd_.valid()) return;
  Read read = Read::kFull;
  for (int i = 0; i < kReadsPerTurn && read == Read::kFull; ++i) read = ReadSome();
  if (read != Read::kOver) TellPauses();
}

// As recv; EPERM: there are descriptors in what comes. Read, they would be closed by us, and their
// last close may wait; looked at, they stay where they are.
ssize_t FramesChannel::Receive(char* buffer) {
  iovec room = {buffer, BufferPool::kBytes};
  if (descriptors_ == Descriptors::kLookedFor) {
    msghdr message = {};
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    const ssize_t n = recvmsg(fd_.get(), &message, MSG_PEEK | MSG_DONTWAIT);
    if (n <= 0) return n;
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
      errno = EPERM;
      return -1;
    }
    room.iov_len = static_cast<size_t>(n);
  }
  return recv(fd_.get(), buffer, room.iov_len, MSG_DONTWAIT);
}

FramesChannel::Read FramesChannel::ReadSome() {
  BufferPool::Buffer buffer = buffers_.Take();
  ssize_t n;
  do {
    n = Receive(buffer.get());
  } while (n < 0 && errno == EINTR);
  const bool blocked = n < 0 && errno == EAGAIN;
  const char* problem = n < 0 && errno == EPERM ? "it sent descriptors" : nullptr;
  if (n > 0) problem = reader_.Take({buffer.get(), static_cast<size_t>(n)}, *this);
  buffers_.Give(std::move(buffer));
  if (!fd_.valid()) return Read::kOver;  // by whom it told something
  if (blocked) return Read::kNothing;
  if (problem == nullptr && n > 0) {
    return static_cast<size_t>(n) < BufferPool::kBytes ? Read::kSome : Read::kFull;
  }
  paused_.clear();  // an answer that has only begun is better not begun
  if (problem != nullptr) {
    Fail(End::kBroken, problem);
  } else {
    Fail(End::kClosed, "it was closed");
  }
  return Read::kOver;
}

void FramesChannel::TellPauses() {
  for (const uint32_t id : std::exchange(paused_, {})) {
    OpenCall* call = Find(id);
    if (call != nullptr && call->user != nullptr) call->user->OnReplyPause();
  }
}

void FramesChannel::Fail(End end, const char* why) {
  if (std::exchange(told_end_, true) || !fd_.valid()) return;
  loop_.Unwatch(fd_.get());
  watched_ = 0;
  if (events_.ended) events_.ended(end, why);
}

void FramesChannel::FailLater(const char* why) {
  if (fail_timer_ != 0 || told_end_) return;
  fail_timer_ = loop_.CallAt(loop_.Now(), [this, why] {
    const Notifier::Turn turn(notifier_);
    fail_timer_ = 0;
    Fail(End::kBroken, why);
  });
}

void FramesChannel::Drain() {
  events_ = {};
  if (fd_.valid()) (void)shutdown(fd_.get(), SHUT_RD);
  Read read = Read::kSome;
  while (fd_.valid() && !told_end_ && (read == Read::kSome || read == Read::kFull)) {
    read = ReadSome();
  }
}

// --- writing

// A call that is alone does not wait for others; one whose body follows at once does.
void FramesChannel::Leave(FrameEnd end) {
  const bool now = (open_ == 1 && end == FrameEnd::kEnd) || backlog() >= kMaxFramePayload;
  if (now) Flush();
  if (!now || HasToTell()) FlushLater();
}

void FramesChannel::FlushLater() {
  if (flush_timer_ != 0 || told_end_) return;
  if ((watched_ & EPOLLOUT) != 0) return NoteBacklog();  // sent when the function has read some
  flush_timer_ = loop_.CallAt(loop_.Now(), [this] {
    const Notifier::Turn turn(notifier_);
    flush_timer_ = 0;
    FlushAndTell();
  });
}

void FramesChannel::Flush() {
  loop_.Cancel(std::exchange(flush_timer_, 0));
  Send();
  if (send_broken_ || backlog() == 0) {
    out_.clear();
    out_sent_ = 0;
    if (out_.capacity() > kMaxFramePayload) out_ = std::string();
  } else if (out_sent_ > kMostBacklog) {
    out_.erase(0, std::exchange(out_sent_, 0));
  }
  NoteBacklog();
  Watch(EPOLLIN | (backlog() > 0 ? uint32_t{EPOLLOUT} : 0U));
}

void FramesChannel::NoteBacklog() {
  full_ = full_ || backlog() > kFullBacklog;
  WatchStall();
}

void FramesChannel::Send() {
  while (fd_.valid() && !send_broken_ && backlog() > 0) {
    const ssize_t n =
        send(fd_.get(), out_.data() + out_sent_, backlog(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
      send_broken_ = true;
      (void)shutdown(fd_.get(), SHUT_RD);  // what was said before is read, and then the end
      return;
    }
    out_sent_ += static_cast<size_t>(n);
    loop_.Cancel(std::exchange(stall_timer_, 0));
  }
}

// By time, not by how much it is: many large heads at once are no fault.
void FramesChannel::WatchStall() {
  if (!full_ || !fd_.valid()) {
    loop_.Cancel(std::exchange(stall_timer_, 0));
  } else if (stall_timer_ == 0) {
    stall_timer_ = loop_.CallAfter(patience_, [this] {
      const Notifier::Turn turn(notifier_);
      stall_timer_ = 0;
      Fail(End::kBroken, "it does not read");
    });
  }
}

bool FramesChannel::HasToTell() const {
  return (wants_room_ && backlog() < kMostBacklog / 2) || (full_ && backlog() < kFullBacklog / 2);
}

void FramesChannel::FlushAndTell() {
  Flush();
  if (wants_room_ && backlog() < kMostBacklog / 2) TellRoom();
  if (full_ && backlog() < kFullBacklog / 2) {
    full_ = false;
    WatchStall();
    if (events_.room) events_.room();
  }
}

void FramesChannel::Watch(uint32_t events) {
  if (!fd_.valid() || watched_ == 0 || watched_ == events) return;
  if (loop_.Modify(fd_.get(), events).ok()) watched_ = events;
}

// Those that were stopped by the backlog, each in its turn until it is full again; those without
// credit hear of that.
void FramesChannel::TellRoom() {
  wants_room_ = false;
  for (size_t told = 0; told < calls_.size(); ++told) {
    if (backlog() >= kMostBacklog) {
      wants_room_ = true;
      return;
    }
    told_room_ = (told_room_ + 1) % calls_.size();
    OpenCall& call = calls_[told_room_];
    if (!call.wants_room || call.user == nullptr || call.credit == 0) continue;
    call.wants_room = false;
    call.user->OnRoom();
  }
}

}  // namespace pulga
