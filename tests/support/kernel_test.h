// For tests against the real kernel: skips that turn into failures under PULGA_TESTS_MUST_RUN=1,
// and children whose end is inspected.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tests/support/test_gate.h"

// Leaves the test unless `condition` holds, saying why.
#define PULGA_NEED(condition, why)       \
  do {                                   \
    if (!(condition)) PULGA_SKIP((why)); \
  } while (false)

namespace pulga::testing {

// Runs `body` in a child; its int is the exit status. Returns the pid.
template <typename Body>
pid_t StartChild(Body body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  return pid;
}

inline int WaitForChild(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return status;
}

// The exit status, or 128 + signal.
template <typename Body>
int RunInChild(Body body) {
  const int status = WaitForChild(StartChild(body));
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace pulga::testing
