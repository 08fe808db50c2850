#include "runtime/exec_invocation.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/pool.h"
#include "runtime/request_head.h"

namespace pulga {
namespace {
constexpr size_t kReadBytes = 16 * 1024;

double Millis(TimePoint from, TimePoint to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}
}  // namespace

ExecInvocation::~ExecInvocation() {
  Abandon(AfterCall::kKill);
  if (output_.valid()) context_.loop.Unwatch(output_.get());
}

void ExecInvocation::Begin(Pool& target) {
  const uint64_t limit = IsArgument() ? kMaxArgumentBytes : version_->spec.limits.body_bytes;
  if (request_.content_length.value_or(0) > std::min(limit, version_->spec.limits.body_bytes)) {
    return Reject(kRejectBodyLimit, 0);
  }
  if (!request_.has_body) body_ = Body::kEnded;
  if (IsArgument() && body_ == Body::kOpen) {
    target.Expect(*this);
  } else {
    target.Submit(*this);
  }
}

// --- the body

bool ExecInvocation::CountBody(size_t more) {
  body_bytes_ += more;
  const uint64_t limit = version_->spec.limits.body_bytes;
  if (body_bytes_ <= (IsArgument() ? std::min<uint64_t>(limit, kMaxArgumentBytes) : limit)) {
    return true;
  }
  Fail({OutcomeKind::kRejected, 0, std::string(kRejectBodyLimit)}, AfterCall::kKill);
  return false;
}

size_t ExecInvocation::Write(std::string_view bytes) {
  const Notifier::FrontCall scope(context_.notifier);
  if (ended() || !input_wanted_ || body_ == Body::kEnded) return bytes.size();
  if (IsArgument()) {
    if (CountBody(bytes.size())) pending_ += bytes;
    return bytes.size();
  }
  size_t taken = 0;
  if (input_.valid() && pending_.empty()) {
    const IoResult wrote = WriteSome(input_.get(), bytes);
    if (wrote.state == IoState::kClosed && !LostBeforeExec()) {
      CloseInput();
      return bytes.size();
    }
    taken = wrote.size;
    NoteSent(bytes.substr(0, taken));
  }
  const size_t room = kMaxHeldBytes - std::min(kMaxHeldBytes, pending_.size());
  const std::string_view rest = bytes.substr(taken, room);
  pending_ += rest;
  taken += rest.size();
  if (!CountBody(taken)) return bytes.size();
  if (!pending_.empty()) WatchInput();
  write_refused_ = taken < bytes.size();
  return taken;
}

void ExecInvocation::EndBody() {
  const Notifier::FrontCall scope(context_.notifier);
  if (body_ == Body::kEnded) return;
  body_ = Body::kEnded;
  if (ended()) return;
  if (IsArgument()) {
    if (pending_.find('\0') != std::string::npos) return Reject(kRejectBadArgument, 0);
    pool->Submit(*this);
  } else if (input_.valid() && pending_.empty()) {
    CloseInput();
  }
}

void ExecInvocation::SendBody() {
  while (!pending_.empty()) {
    const IoResult wrote = WriteSome(input_.get(), pending_);
    if (wrote.state == IoState::kBlocked) return WatchInput();
    if (wrote.state == IoState::kClosed) {
      if (LostBeforeExec()) return;
      CloseInput();
      break;
    }
    NoteSent(std::string_view(pending_).substr(0, wrote.size));
    pending_.erase(0, wrote.size);
  }
  if (body_ == Body::kEnded && pending_.empty()) CloseInput();
  if (std::exchange(write_refused_, false)) Notify(Notifier::kWritable);
}

// A parked instance may turn out to be dead: what it was sent is kept, within bounds, for another.
void ExecInvocation::NoteSent(std::string_view bytes) {
  const bool keeps = receipt_.start == StartKind::kParked && body_sent_ == kept_.size() &&
                     kept_.size() + bytes.size() <= kMaxHeldBytes;
  if (keeps) kept_ += bytes;
  body_sent_ += bytes.size();
}

// Nobody reads the pipe: because the program closed it, or because the parked instance died before
// there was a program? Then the body is kept for the next one, and the exit is on its way.
bool ExecInvocation::LostBeforeExec() {
  if (instance == nullptr || pool->Times(*instance).exec != TimePoint()) return false;
  if (input_watched_) context_.loop.Unwatch(input_.get());
  input_watched_ = false;
  input_.Reset();
  return true;
}

void ExecInvocation::WatchInput() {
  if (input_watched_ || !input_.valid()) return;
  const Status watched = context_.loop.Watch(input_.get(), EPOLLOUT | EPOLLET, [this](uint32_t) {
    const Notifier::Turn turn(context_.notifier);
    SendBody();
  });
  input_watched_ = watched.ok();
  if (!watched.ok()) CloseInput();
}

// The program has all it wants: what still comes is taken and dropped.
void ExecInvocation::CloseInput() {
  if (input_watched_) context_.loop.Unwatch(input_.get());
  input_watched_ = false;
  input_.Reset();
  input_wanted_ = false;
  pending_.clear();
}

// --- the run

void ExecInvocation::OnInstance(Instance& granted, StartKind start) {
  receipt_.start = start;
  receipt_.queue_ms = MillisSince(submitted);
  StartTimeout(AfterCall::kTerminate);
  const Status started = Start(granted);
  if (!started.ok()) {
    OnMoved();
    return pool->LaunchFailed(*this, granted, started.error());
  }
  if (input_.valid()) SendBody();
}

Status ExecInvocation::Start(Instance& granted) {
  StartOptions options;
  PULGA_ASSIGN_OR_RETURN(FunctionPipe out, MakeOutputPipe());
  options.stdout_fd = std::move(out.theirs);
  output_ = std::move(out.ours);
  if (request_.has_body && !IsArgument()) {
    PULGA_ASSIGN_OR_RETURN(FunctionPipe in, MakeInputPipe());
    options.stdin_fd = std::move(in.theirs);
    input_ = std::move(in.ours);
  } else {
    PULGA_ASSIGN_OR_RETURN(options.stdin_fd, OpenNullInput());
    if (IsArgument()) options.extra_args.push_back(pending_);
  }
  options.extra_env = BuildRequestEnvironment(request_, context_.clock.WallTime());
  PULGA_RETURN_IF_ERROR(context_.loop.Watch(output_.get(), EPOLLIN | EPOLLET, [this](uint32_t) {
    const Notifier::Turn turn(context_.notifier);
    OnOutput();
  }));
  return pool->Launch(granted, *this, std::move(options));
}

void ExecInvocation::OnMoved() {
  ForgetGrant();
  if (output_.valid()) context_.loop.Unwatch(output_.get());
  output_.Reset();
  output_readable_ = output_ended_ = false;  // of the pipe that is gone
  if (input_watched_) context_.loop.Unwatch(input_.get());
  input_watched_ = false;
  input_.Reset();
  input_wanted_ = true;
  pending_.insert(0, kept_);  // all that was sent, by Movable()
  kept_.clear();
  body_sent_ = 0;
}

void ExecInvocation::CloseIo() {
  CloseInput();
  // Ended while the program still has its slot, a time-out for one: its record is of this run.
  if (instance != nullptr) FillReceipt(pool->Times(*instance));
  // Output that is already there belongs to an answer whose end is known: Read() takes it.
  if (exited_) return;
  if (output_.valid()) context_.loop.Unwatch(output_.get());
  output_.Reset();
}

void ExecInvocation::FillReceipt(const SlotTimes& times) {
  if (times.exec < assigned_) return;  // not reached, or left by who had the slot before
  receipt_.sandbox_ms = Millis(assigned_, times.exec);
  function_begun_ = times.exec;
  if (first_output_ != TimePoint()) {
    receipt_.exec_ms = std::max(0.0, Millis(times.exec, first_output_));
  } else if (exited_) {
    receipt_.exec_ms = MillisSince(times.exec);
  }
}

void ExecInvocation::OnInstanceExit(Instance& dead, const InstanceExit& exit,
                                    const SlotTimes& times) {
  (void)dead;
  instance = nullptr;
  if (ended()) return;
  exited_ = true;
  FillReceipt(times);
  if (!streaming_) Hold();
  if (ended()) return;  // over the output limit
  if (streaming_ && !RestFits()) {
    Fail({OutcomeKind::kOutputLimit, 0, ""}, AfterCall::kDead);
    return;
  }
  const Outcome outcome = OutcomeOf(exit);
  if (streaming_) {
    Finish(outcome, AfterCall::kDead);
    Notify(Notifier::kReadable);
  } else if (outcome.kind != OutcomeKind::kOk) {
    Fail(outcome, AfterCall::kDead);
  } else {
    Finish(outcome, AfterCall::kDead);
    head_.status = 200;
    head_.headers.emplace_back("Content-Type", version_->spec.content_type);
    head_.content_length = held_.size();
    head_.final_outcome_known = true;
    NotifyHead();
  }
}

// --- the output

bool ExecInvocation::CountOutput(size_t more) {
  output_bytes_ += more;
  if (output_bytes_ <= version_->spec.limits.output_bytes) return true;
  Fail({OutcomeKind::kOutputLimit, 0, ""}, exited_ ? AfterCall::kDead : AfterCall::kKill);
  return false;
}

// After the end: is what the pipe still holds within the limit?
bool ExecInvocation::RestFits() {
  int rest = 0;
  if (!output_.valid() || ioctl(output_.get(), FIONREAD, &rest) != 0) return true;
  return output_bytes_ + static_cast<uint64_t>(rest) <= version_->spec.limits.output_bytes;
}

void ExecInvocation::OnOutput() {
  output_readable_ = true;
  if (streaming_) {
    Notify(Notifier::kReadable);
  } else {
    Hold();
  }
}

void ExecInvocation::Hold() {
  while (output_.valid() && !output_ended_) {
    const size_t before = held_.size();
    held_.resize(before + std::min(kReadBytes, kMaxHeldBytes - before));
    const IoResult got = ReadSome(output_.get(), held_.data() + before, held_.size() - before);
    held_.resize(before + got.size);
    if (before == 0 && got.size > 0) first_output_ = context_.clock.Now();
    if (got.state == IoState::kBlocked) break;
    if (got.state == IoState::kClosed) output_ended_ = true;
    if (!CountOutput(got.size)) return;
    if (held_.size() >= kMaxHeldBytes) return BeginStreaming();
  }
  if (request_.wants_stream && !held_.empty() && !exited_) BeginStreaming();
}

void ExecInvocation::BeginStreaming() {
  streaming_ = true;
  if (instance != nullptr) FillReceipt(pool->Times(*instance));
  StampFunction();
  head_.status = 200;
  head_.headers.emplace_back("Content-Type", version_->spec.content_type);
  NotifyHead();
}

std::optional<std::string_view> ExecInvocation::WholeBody() const {
  if (streaming_ || !head_told()) return std::nullopt;
  return head_.status == 200 ? std::string_view(held_) : std::string_view();
}

ReadResult ExecInvocation::Read(char* buffer, size_t capacity) {
  const Notifier::FrontCall scope(context_.notifier);
  if (!head_told() || capacity == 0) return {ReadState::kWait, 0};
  const bool broken = ended() && outcome_.kind != OutcomeKind::kOk;
  // A reply cut off by us has no more to say; one cut off by the program's end says all it said.
  if (broken && !exited_) return {ReadState::kAborted, 0};
  if (held_read_ < held_.size() && head_.status == 200) {
    const size_t n = std::min(capacity, held_.size() - held_read_);
    memcpy(buffer, held_.data() + held_read_, n);
    held_read_ += n;
    return {ReadState::kData, n};
  }
  return ReadPipe(buffer, capacity);
}

ReadResult ExecInvocation::ReadPipe(char* buffer, size_t capacity) {
  if (streaming_ && output_.valid() && !output_ended_) {
    const IoResult got = ReadSome(output_.get(), buffer, capacity);
    if (got.state == IoState::kSome) {
      if (ended()) return {ReadState::kData, got.size};  // counted at the end
      return CountOutput(got.size) ? ReadResult{ReadState::kData, got.size}
                                   : ReadResult{ReadState::kAborted, 0};
    }
    output_ended_ = got.state == IoState::kClosed || exited_;
  }
  if (!ended()) return {ReadState::kWait, 0};
  if (streaming_ && outcome_.kind != OutcomeKind::kOk) return {ReadState::kAborted, 0};
  return {ReadState::kEnd, 0};
}

}  // namespace pulga
