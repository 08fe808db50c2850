// Pool, another part: servers that are spoken to over a channel of their own (frames mode).
#include <utility>

#include "runtime/pool.h"

namespace pulga {
namespace {

FailureFacts ChannelFacts(const Instance& instance, const char* why) {
  FailureFacts facts;
  facts.remark = std::string("its channel: ") + why;
  const bool listened = instance.ready != TimePoint();  // then it may tell of other callers
  if (instance.stderr_log != nullptr && !listened) {
    facts.stderr_tail = instance.stderr_log->tail();
  }
  return facts;
}

}  // namespace

Status Pool::OpenChannel(Instance& instance, UniqueFd fd) {
  instance.channel =
      std::make_unique<FramesChannel>(context_.loop, context_.notifier, context_.buffers);
  FramesChannel::Events events;
  events.ready = [this, &instance] { OnListening(instance); };
  events.room = [this] { Evaluate(); };
  events.ended = [this, &instance](FramesChannel::End end, const char* why) {
    OnChannelEnd(instance, end, why);
  };
  const FramesChannel::Options options = {version_->concurrency, version_->spec.limits.timeout};
  return instance.channel->Open(std::move(fd), options, std::move(events));
}

// No call can go on, and none may begin. How its process ends decides how the open ones do: it has
// its grace for that, and nothing that could change it is sent before. Without a hello both are a
// start that fails, in its own time.
void Pool::OnChannelEnd(Instance& instance, FramesChannel::End end, const char* why) {
  instance.closed = true;
  if (end == FramesChannel::End::kBroken) return BreakOff(instance, why);
  instance.cut_off = true;
  if (instance.step == InstanceStep::kStarting) return;
  const bool failed = instance.step != InstanceStep::kEnding && MetNoCall(instance);
  if (instance.step == InstanceStep::kFrozen || instance.step == InstanceStep::kReclaimed) {
    Terminate(instance);  // frozen it could not end; there are no calls whose outcome that changes
  } else if (instance.step != InstanceStep::kEnding) {
    AwaitExit(instance);
  }
  for (Call* call : std::vector<Call*>(instance.calls)) {
    if (call->Movable()) MoveUnsent(instance, *call);
  }
  if (failed) {
    NoteFailedChannel({OutcomeKind::kBadResponse, 0, ""},
                      ChannelFacts(instance, "the function closed it before its first call"));
  }
  Evaluate();
}

void Pool::NoteFailedChannel(const Outcome& outcome, const FailureFacts& facts) {
  NoteFailure(outcome, facts);
  EndProof(Error{Code::kUnavailable, 0, MakeFailureText(outcome, version_.get(), facts)});
}

// Nothing of it was said to the function: it goes on elsewhere, once.
void Pool::MoveUnsent(Instance& instance, Call& call) {
  if (call.moved_once) {
    call.facts.remark = "the function closed its channel";
    return call.Fail({OutcomeKind::kBadResponse, 0, ""}, AfterCall::kCancelled);
  }
  instance.Forget(&call);
  instance.used = true;
  Requeue(call);
}

void Pool::BreakOff(Instance& instance, const char* why) {
  const bool starting = instance.step == InstanceStep::kStarting;
  const bool stopped = instance.step == InstanceStep::kEnding;
  const bool failed = !stopped && MetNoCall(instance);
  const FailureFacts facts = ChannelFacts(instance, why);
  Kill(instance);
  for (Call* call : std::vector<Call*>(instance.calls)) {
    call->facts = facts;
    call->Fail({OutcomeKind::kBadResponse, 0, ""}, AfterCall::kCancelled);
  }
  if (failed) {
    const auto kind = starting ? OutcomeKind::kNotReady : OutcomeKind::kBadResponse;
    NoteFailedChannel({kind, 0, ""}, facts);
  } else if (!stopped) {
    Decide("stops an instance: " + facts.remark);
    Remark(last_decision_);
  }
  Evaluate();
}

}  // namespace pulga
