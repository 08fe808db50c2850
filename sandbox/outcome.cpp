#include "sandbox/outcome.h"

#include <signal.h>
#include <string.h>

namespace pulga {

std::string SignalName(int signo) {
  if (signo >= SIGRTMIN && signo <= SIGRTMAX) return "SIGRTMIN+" + std::to_string(signo - SIGRTMIN);
  const char* name = sigabbrev_np(signo);
  return name == nullptr ? std::to_string(signo) : std::string("SIG") + name;
}

std::string OutcomeName(const Outcome& outcome) {
  switch (outcome.kind) {
    case OutcomeKind::kOk:
      return "ok";
    case OutcomeKind::kExited:
      return "exited:" + std::to_string(outcome.code);
    case OutcomeKind::kSignaled:
      return "signaled:" + SignalName(outcome.code);
    case OutcomeKind::kOomKilled:
      return "oom-killed";
    case OutcomeKind::kTimedOut:
      return "timed-out";
    case OutcomeKind::kSyscallDenied:
      return "syscall-denied";
    case OutcomeKind::kOutputLimit:
      return "output-limit";
    case OutcomeKind::kBadResponse:
      return "bad-response";
    case OutcomeKind::kNotReady:
      return "not-ready";
    case OutcomeKind::kCancelled:
      return "cancelled";
    case OutcomeKind::kSetupFailed:
      return "setup-failed:" + outcome.detail;
    case OutcomeKind::kRejected:
      return "rejected:" + outcome.detail;
  }
  return "unknown";
}

}  // namespace pulga
