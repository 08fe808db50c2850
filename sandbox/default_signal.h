// As PID 1 of its namespace a program gets no signal it did not ask for, so the SIGTERM that ends
// any other process does nothing to it, and whoever waits for its end waits out the grace period.
// Source: pid_namespaces(7), proc(5) on SigBlk, SigIgn, SigCgt.
#pragma once

#include <sys/types.h>

#include <string_view>

namespace pulga {

// What to send so that `signo` has the effect it has on an ordinary process: SIGKILL instead of a
// SIGTERM that `pid`, a PID 1, neither catches, ignores nor blocks; else `signo` itself. Uses the
// /proc of the caller's namespaces; where that tells nothing, `signo`. Async-signal-safe.
int AsOrdinarySignal(pid_t pid, int signo);

// `status`: a /proc/PID/status or its beginning. True when it shows that `signo` is left to its
// default action.
bool LeavesToDefault(std::string_view status, int signo);

}  // namespace pulga
