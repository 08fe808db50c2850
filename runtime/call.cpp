#include "runtime/call.h"

#include <algorithm>
#include <utility>

#include "runtime/instance.h"
#include "runtime/pool.h"

namespace pulga {

Call::Call(RuntimeContext& context, VersionPtr version, std::shared_ptr<OutcomeCounts> counts,
           InvocationRequest request, InvocationObserver& observer)
    : submitted(context.clock.Now()),
      context_(context),
      version_(std::move(version)),
      counts_(std::move(counts)),
      request_(std::move(request)),
      observer_(observer) {
  ++context_.open_calls;
  if (counts_ != nullptr) ++counts_->invocations;
}

Call::~Call() {
  context_.notifier.Forget(*this);
  if (--context_.open_calls == 0 && context_.on_calls_gone) context_.on_calls_gone();
}

std::string Call::FailureText() const { return MakeFailureText(outcome_, version_.get(), facts); }

double Call::MillisSince(TimePoint begin) const {
  const auto spent = context_.clock.Now() - begin;
  return std::chrono::duration<double, std::milli>(spent).count();
}

void Call::Deliver(Notifier::Kind kind) {
  switch (kind) {
    case Notifier::kHead:
      return observer_.OnHead();
    case Notifier::kReadable:
      return observer_.OnReadable();
    case Notifier::kWritable:
      return observer_.OnWritable();
  }
}

void Call::NotifyHead() {
  if (head_told_) return;
  head_told_ = true;
  Notify(Notifier::kHead);
}

void Call::StartTimeout(AfterCall after) {
  assigned_ = context_.clock.Now();
  timeout_ = context_.loop.CallAt(assigned_ + version_->spec.limits.timeout, [this, after] {
    const Notifier::Turn turn(context_.notifier);
    timeout_ = 0;
    Fail({OutcomeKind::kTimedOut, 0, ""}, after);
  });
}

void Call::ClearTimeout() { context_.loop.Cancel(std::exchange(timeout_, 0)); }

void Call::StampFunction() {
  if (assigned_ == TimePoint()) return;
  if (function_begun_ == TimePoint()) {
    receipt_.sandbox_ms = MillisSince(assigned_);
  } else {
    receipt_.function_ms = MillisSince(function_begun_);
  }
}

// The wait in parts that follow on each other: of a start under way only what this call saw of it.
void Call::ForgetGrant() {
  ClearTimeout();
  assigned_ = function_begun_ = TimePoint();
  receipt_ = Receipt();
}

void Call::Finish(Outcome outcome, AfterCall after) {
  if (ended_) return;
  ended_ = true;
  ClearTimeout();
  outcome_ = std::move(outcome);
  if (counts_ != nullptr) counts_->Add(outcome_);
  // The caller's status line is out already, or nobody is there to read one: only the log can tell.
  const bool unheard = head_told_ || outcome_.kind == OutcomeKind::kCancelled;
  if (unheard && outcome_.kind != OutcomeKind::kOk) LogOutcome();
  if (receipt_.queue_ms < 0) receipt_.queue_ms = MillisSince(submitted);
  CloseIo();
  StampFunction();
  if (pool != nullptr) pool->Release(*this, after);
}

void Call::LogOutcome() {
  context_.logs.Append(version_->key,
                       {UnixMillis(context_.clock), version_->number, request_.call_id, "pulga",
                        (head_told_ ? "after its reply had begun, the call ended with "
                                    : "before its reply had begun, the call ended with ") +
                            OutcomeName(outcome_)});
}

void Call::Fail(Outcome outcome, AfterCall after, uint32_t retry_after_s) {
  if (ended_) return;
  Finish(std::move(outcome), after);
  if (head_told_) {
    Notify(Notifier::kReadable);
  } else {
    head_ = ResponseHead();
    head_.final_outcome_known = true;
    head_.retry_after_s = retry_after_s;
    NotifyHead();
  }
}

void Call::Reject(std::string_view reason, uint32_t retry_after_s) {
  Fail({OutcomeKind::kRejected, 0, std::string(reason)}, AfterCall::kCancelled, retry_after_s);
}

void Call::Abandon(AfterCall after) {
  context_.notifier.Forget(*this);
  Finish({OutcomeKind::kCancelled, 0, ""}, after);
}

}  // namespace pulga
