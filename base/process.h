// PidFd: a child process by its pidfd, so that a reused pid is never signalled or waited for.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

// How a process ended, as wait(2) packs it.
struct ExitInfo {
  int wait_status = 0;
  rusage usage = {};
};

class PidFd {
 public:
  PidFd() = default;
  // Opens the pidfd of a child that nobody else reaps.
  static Result<PidFd> OfChild(pid_t pid);

  bool valid() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }  // readable once the process has ended
  pid_t pid() const { return pid_; }
  Status Signal(int signo) const;
  // Waits; empty afterwards.
  Result<ExitInfo> Reap();

 private:
  UniqueFd fd_;
  pid_t pid_ = -1;
};

struct SpawnOptions {
  std::vector<std::string> argv;         // argv[0] is the path
  std::vector<std::string> env;          // "K=V"
  std::vector<std::pair<int, int>> fds;  // {ours, the child's number}; all others are closed
};
// fork + execve with a clean signal mask; an exec failure is returned here.
Result<PidFd> SpawnProcess(const SpawnOptions& options);

}  // namespace pulga
