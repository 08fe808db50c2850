// Outcome: how an invocation ended. A closed set; a failing function is an outcome, not an Error.
// Precedence where several apply: OOM > timeout > signal.
// Source: docs/architecture.md, "Outcomes".
#pragma once

#include <cstdint>
#include <string>

namespace pulga {

enum class OutcomeKind : uint8_t {
  kOk,        // exec: exit 0; http: the function answered (whatever status)
  kExited,    // exit code != 0: `code`
  kSignaled,  // `code` = signal number
  kOomKilled,
  kTimedOut,
  kSyscallDenied,  // died by seccomp (SIGSYS)
  kOutputLimit,
  kBadResponse,  // http: malformed, or the connection was lost
  kNotReady,     // http: never listened within start_timeout
  kCancelled,    // the client went away
  kSetupFailed,  // `detail` = step, `code` = errno: not run; or kLauncherLost ...
  kRejected,     // never started: `detail` = queue-full, queue-timeout, memory, shutting-down ...
};

struct Outcome {
  OutcomeKind kind = OutcomeKind::kOk;
  int code = 0;
  std::string detail;
};

// Outcome::detail of kSetupFailed when our own process above a call died: the call may have run.
inline constexpr const char* kLauncherLost = "launcher-lost";
inline constexpr const char* kSpawnerLost = "spawner-lost";

// The header value: "ok", "exited:3", "signaled:SIGSEGV", "setup-failed:mount-proc",
// "rejected:queue-full", ... (docs/api.md, "Outcomes -> HTTP").
std::string OutcomeName(const Outcome& outcome);
std::string SignalName(int signo);

}  // namespace pulga
