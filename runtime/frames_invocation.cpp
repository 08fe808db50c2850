#include "runtime/frames_invocation.h"

#include <errno.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/instance.h"
#include "runtime/pipe_io.h"
#include "runtime/pool.h"
#include "runtime/request_head.h"

namespace pulga {

FramesInvocation::~FramesInvocation() { Abandon(AfterCall::kCancelled); }

FramesChannel* FramesInvocation::channel() const {
  return instance == nullptr ? nullptr : instance->channel.get();
}

void FramesInvocation::OnInstance(Instance& granted, StartKind start) {
  BeginFunction(granted, start);
  const std::string head = BuildRequestFrame(request_, context_.clock.WallTime());
  if (head.empty()) {
    facts.remark = "the request's path does not fit a frame";
    return Fail({OutcomeKind::kSetupFailed, E2BIG, "request-head"}, AfterCall::kCancelled);
  }
  const bool bodiless = BodyComplete() && pending_.empty();
  id_ = channel()->Begin(*this, head, bodiless ? FrameEnd::kEnd : FrameEnd::kMore);
  begun_ = id_ != 0;  // else the instance's end is about to be told
  end_sent_ = begun_ && bodiless;
  if (begun_) Push();
}

void FramesInvocation::CloseIo() {
  if (channel() != nullptr) channel()->Cancel(id_);
  id_ = 0;
  pending_.clear();
}

// --- the request

void FramesInvocation::Push() {
  if (end_sent_ || (pending_.empty() && !BodyComplete())) return;
  const FrameEnd end = BodyComplete() ? FrameEnd::kEnd : FrameEnd::kMore;
  const size_t taken = channel()->SendBody(id_, pending_, end);
  end_sent_ = end == FrameEnd::kEnd && taken == pending_.size();
  pending_.erase(0, taken);
  TellRoom();
}

void FramesInvocation::OnRoom() { Push(); }

// The channel tells of room only where it had none: what it took whole is told by us.
void FramesInvocation::TellRoom() {
  if (pending_.empty() && std::exchange(write_refused_, false)) Notify(Notifier::kWritable);
}

size_t FramesInvocation::Write(std::string_view bytes) {
  const Notifier::FrontCall scope(context_.notifier);
  if (ended() || body_ended_) return bytes.size();
  const size_t offered = bytes.size();
  bytes = Announced(bytes);
  if (bytes.empty()) return offered;
  const size_t taken = std::min(bytes.size(), kMaxHeldBytes - pending_.size());
  if (taken == 0) {
    write_refused_ = true;
    return 0;
  }
  if (!CountBody(taken)) return offered;
  if (id_ == 0 || !pending_.empty()) {
    pending_.append(bytes.substr(0, taken));
  } else {  // not through the buffer: what the channel takes at once is copied once
    const FrameEnd end = BodyComplete() ? FrameEnd::kEnd : FrameEnd::kMore;
    const size_t sent = channel()->SendBody(id_, bytes.substr(0, taken), end);
    end_sent_ = end == FrameEnd::kEnd && sent == taken;
    pending_.append(bytes.substr(sent, taken - sent));
  }
  write_refused_ = taken < bytes.size();
  if (id_ != 0) TellRoom();
  return taken == bytes.size() ? offered : taken;
}

void FramesInvocation::EndBody() {
  const Notifier::FrontCall scope(context_.notifier);
  if (body_ended_) return;
  body_ended_ = true;
  if (ended()) return;
  if (!CheckBodyEnd()) return;
  if (id_ != 0) Push();
}

// --- the reply

bool FramesInvocation::Bodiless() const {
  return request_.method == "HEAD" || answer_.status == 204 || answer_.status == 304;
}

void FramesInvocation::OnReplyHead(std::string_view payload, FrameEnd end) {
  head_done_ = true;
  if (end == FrameEnd::kEnd) id_ = 0;
  if (const char* problem = ParseReplyHead(payload, &answer_)) return OnBadResponse(problem);
  const uint64_t limit = version_->spec.limits.output_bytes;
  if (limit != 0 && !Bodiless() && answer_.content_length.value_or(0) > limit) {
    return Fail({OutcomeKind::kOutputLimit, 0, ""}, AfterCall::kCancelled);
  }
  if (end == FrameEnd::kEnd || Bodiless()) Complete();  // nobody may see a body: it is cancelled
}

void FramesInvocation::OnReplyBody(std::string_view bytes, FrameEnd end) {
  if (end == FrameEnd::kEnd) id_ = 0;
  if (!CountReply(bytes.size())) return;
  buffer_.append(bytes);
  if (head_told() && !bytes.empty()) Notify(Notifier::kReadable);
  if (end == FrameEnd::kEnd) Complete();
}

bool FramesInvocation::CountReply(size_t more) {
  if (!CountOutput(more)) return false;
  if (!answer_.content_length || output_bytes_ <= *answer_.content_length) return true;
  OnBadResponse("the body is longer than its Content-Length");
  return false;
}

// A small answer whose size is known comes whole; of others nobody knows when there is more.
void FramesInvocation::OnReplyPause() {
  if (head_told() || ended()) return;
  if (answer_.content_length && *answer_.content_length <= BufferPool::kBytes) return;
  TellHead();
}

void FramesInvocation::TellHead() {
  StampFunction();
  head_.status = answer_.status;
  head_.headers = std::move(answer_.headers);
  head_.final_outcome_known = complete_;
  head_.content_length = answer_.content_length;
  if (whole_ && !Bodiless()) head_.content_length = buffer_.size();
  if (answer_.status == 204) head_.content_length.reset();
  NotifyHead();
}

void FramesInvocation::Complete() {
  if (!Bodiless() && answer_.content_length && *answer_.content_length != output_bytes_) {
    return OnBadResponse("the body is shorter than its Content-Length");
  }
  complete_ = true;
  whole_ = !head_told();
  Finish({OutcomeKind::kOk, 0, ""}, AfterCall::kReturn);
  if (!head_told()) return TellHead();
  Notify(Notifier::kReadable);
}

void FramesInvocation::OnGivenUp() {
  id_ = 0;
  OnBadResponse(head_done_ ? "the function gave the call up in mid-answer"
                           : "the function gave the call up without an answer");
}

// What it said before it died has been read by now.
void FramesInvocation::OnInstanceExit(Instance& dead, const InstanceExit& exit,
                                      const SlotTimes& times) {
  (void)times;
  instance = nullptr;
  pool = nullptr;
  id_ = 0;
  if (ended()) return;
  Outcome outcome = OutcomeOf(exit);
  // It closed its channel and stayed: what we ended it by is not the cause.
  const bool by_us = dead.killed && outcome.kind == OutcomeKind::kSignaled;
  if (dead.cut_off && by_us && outcome.code == SIGKILL) {
    outcome = {OutcomeKind::kBadResponse, 0, ""};
    facts.remark = "the function closed its channel";
  }
  if (outcome.kind == OutcomeKind::kOk) {
    outcome.kind = OutcomeKind::kBadResponse;
    if (facts.remark.empty()) facts.remark = "the function exited with code 0 before it answered";
  }
  Fail(std::move(outcome), AfterCall::kDead);
}

std::optional<std::string_view> FramesInvocation::WholeBody() const {
  if (!head_told()) return std::nullopt;
  if (head_.status == 0) return std::string_view();
  if (!whole_) return std::nullopt;
  return std::string_view(buffer_).substr(begin_);
}

ReadResult FramesInvocation::Read(char* buffer, size_t capacity) {
  const Notifier::FrontCall scope(context_.notifier);
  if (!head_told() || capacity == 0) return {ReadState::kWait, 0};
  if (head_.status == 0) return {ReadState::kEnd, 0};
  if (ended() && !complete_) return {ReadState::kAborted, 0};
  const size_t n = std::min(capacity, buffer_.size() - begin_);
  if (n == 0) return {complete_ ? ReadState::kEnd : ReadState::kWait, 0};
  memcpy(buffer, buffer_.data() + begin_, n);
  begin_ += n;
  // Slow readers never empty it.
  if (begin_ == buffer_.size() || begin_ >= kFramesReplyWindow / 2) {
    buffer_.erase(0, std::exchange(begin_, 0));
  }
  if (id_ != 0) channel()->Grant(id_, n);
  return {ReadState::kData, n};
}

}  // namespace pulga
