#include "runtime/failure_text.h"

#include <cstring>

#include "base/units.h"
#include "runtime/exec_invocation.h"
#include "runtime/invocation.h"

namespace pulga {
namespace {

std::string Rejection(const std::string& reason, const Version* version) {
  if (reason == kRejectUnknownFunction) return "there is no such function; `pulga ls` lists them";
  if (reason == kRejectBodyLimit && version != nullptr &&
      version->spec.input == InputKind::kArgument &&
      version->spec.limits.body_bytes > kMaxArgumentBytes) {
    return "the request body is over the " + std::to_string(kMaxArgumentBytes) +
           " bytes that an argument can hold; send less, or use input \"stdin\"";
  }
  if (reason == kRejectBodyLimit) {
    return "the request body is over the limit" +
           (version == nullptr ? std::string()
                               : " of " + HumanBytes(version->spec.limits.body_bytes)) +
           "; send less, or raise limits.body";
  }
  if (reason == kRejectBadArgument) {
    return "the body has a zero byte, which an argument cannot carry; use input \"stdin\"";
  }
  if (reason == kRejectUpgrade) {
    return "this function is no server of its own and speaks no other protocol than HTTP; ask "
           "without Upgrade, or deploy it in mode http";
  }
  if (reason == kRejectQueueFull) {
    return "all instances are busy and the queue is full; try again, or raise scale.max or "
           "scale.queue";
  }
  if (reason == kRejectQueueTimeout) {
    return "no instance became free in time; try again, or raise scale.max or scale.queue_wait";
  }
  if (reason == kRejectMemory) {
    return "the memory budget of this board is used up; try again, or lower limits.memory";
  }
  if (reason == kRejectPressure) return "the board is under pressure and starts nothing new";
  if (reason == kRejectUnavailable) return "sandboxes cannot be made right now; try again";
  if (reason == kRejectShuttingDown) return "the daemon or this function is shutting down";
  return "the call was rejected: " + reason;
}

std::string OutOfMemory(const Version* version, const FailureFacts& facts) {
  std::string text = "the function ran out of memory";
  if (facts.memory_peak_bytes != 0) text += ": peak " + HumanBytes(facts.memory_peak_bytes);
  const uint64_t limit = facts.memory_limit_bytes != 0 ? facts.memory_limit_bytes
                         : version != nullptr          ? version->spec.sandbox.memory_bytes
                                                       : 0;
  if (limit != 0) text += ", limit " + HumanBytes(limit);
  return text + "; raise limits.memory";
}

std::string SetupFailed(const Outcome& outcome) {
  if (outcome.detail == kLauncherLost || outcome.detail == kSpawnerLost) {
    const char* who = outcome.detail == kLauncherLost ? "launcher" : "spawner";
    return "the sandbox was lost during the call because our " + std::string(who) +
           " process died, not by the function's fault; the call may have run: send it again only "
           "if running twice does no harm";
  }
  return "the sandbox could not be set up: " + outcome.detail +
         (outcome.code == 0 ? std::string() : std::string(": ") + strerror(outcome.code));
}

bool InFrames(const Version* version) {
  return version != nullptr && version->mode == SandboxMode::kFrames;
}

std::string Port(const Version* version) {
  return "port " + std::to_string(version == nullptr ? 0 : version->port);
}

// "exited with code 3" and what that means, where a server had yet to listen.
std::string Ended(const std::string& how, const Version* version, const FailureFacts& facts) {
  if (!facts.ended_before_listening || version == nullptr) return "the function " + how;
  return "the function " + how + " before it " +
         (InFrames(version) ? "said hello on its channel" : "listened on " + Port(version)) +
         "; `pulga logs " + version->key.name + "` shows what it wrote";
}

std::string NotReady(const Version* version, const FailureFacts& facts) {
  if (facts.ended_before_listening) return Ended("exited with code 0", version, facts);
  const InvocationLimits limits = version == nullptr ? InvocationLimits() : version->spec.limits;
  if (InFrames(version)) {
    return "the function runs, but said no hello on its channel (PULGA_FRAMES_FD) within " +
           FormatDuration(limits.start_timeout) + "; check it, or raise limits.start_timeout";
  }
  return "the function runs, but did not listen on " + Port(version) + " within " +
         FormatDuration(limits.start_timeout) +
         "; check that it listens on that port (`port`) and on all addresses, or raise "
         "limits.start_timeout";
}

std::string Sentence(const Outcome& outcome, const Version* version, const FailureFacts& facts) {
  const InvocationLimits limits = version == nullptr ? InvocationLimits() : version->spec.limits;
  switch (outcome.kind) {
    case OutcomeKind::kOk:
      return "";
    case OutcomeKind::kExited:
      return Ended("exited with code " + std::to_string(outcome.code), version, facts);
    case OutcomeKind::kSignaled:
      return Ended("was killed by " + SignalName(outcome.code), version, facts);
    case OutcomeKind::kOomKilled:
      return OutOfMemory(version, facts);
    case OutcomeKind::kTimedOut:
      return "the function did not finish within " + FormatDuration(limits.timeout) +
             "; raise limits.timeout";
    case OutcomeKind::kSyscallDenied:
      return "the function was killed for a system call that sandboxes do not allow";
    case OutcomeKind::kOutputLimit:
      return "the function wrote more than " + HumanBytes(limits.output_bytes) +
             "; raise limits.output";
    case OutcomeKind::kBadResponse:
      return InFrames(version) ? "the function gave no valid answer"
                               : "the function gave no valid HTTP response";
    case OutcomeKind::kNotReady:
      return NotReady(version, facts);
    case OutcomeKind::kCancelled:
      return "the client went away";
    case OutcomeKind::kSetupFailed:
      return SetupFailed(outcome);
    case OutcomeKind::kRejected:
      return Rejection(outcome.detail, version);
  }
  return "";
}

}  // namespace

std::string MakeFailureText(const Outcome& outcome, const Version* version,
                            const FailureFacts& facts) {
  std::string text = Sentence(outcome, version, facts);
  if (!facts.remark.empty()) text += " (" + facts.remark + ")";
  text += '\n';
  if (!facts.stderr_tail.empty()) {
    text += "\n" + facts.stderr_tail;
    if (text.back() != '\n') text += '\n';
  }
  return text;
}

}  // namespace pulga
