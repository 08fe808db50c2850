// PidFd: a child process by its pidfd, so that a reused pid is never signalled or waited for.
// Before Linux 5.3 by its pid, which cannot be reused while it is not reaped (exit_event.h).
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "base/exit_event.h"
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
  PidFd(PidFd&& other) noexcept
      : fd_(std::move(other.fd_)),
        event_(std::move(other.event_)),
        pid_(std::exchange(other.pid_, -1)) {}
  PidFd& operator=(PidFd&& other) noexcept {
    fd_ = std::move(other.fd_);
    event_ = std::move(other.event_);
    pid_ = std::exchange(other.pid_, -1);
    return *this;
  }
  ~PidFd() = default;
  // Opens the pidfd of a child that nobody else reaps.
  static Result<PidFd> OfChild(pid_t pid);

  bool valid() const { return pid_ > 0; }
  int fd() const { return fd_.valid() ? fd_.get() : event_.fd(); }  // readable once it has ended
  pid_t pid() const { return pid_; }
  Status Signal(int signo) const;
  // Waits; empty afterwards.
  Result<ExitInfo> Reap();

 private:
  UniqueFd fd_;
  ExitEvent event_;  // where there is no pidfd
  pid_t pid_ = -1;
};

struct SpawnOptions {
  std::vector<std::string> argv;         // argv[0] is the path
  std::vector<std::string> env;          // "K=V"
  std::vector<std::pair<int, int>> fds;  // {ours, the child's number}; all others are closed
  std::vector<int> blocked;              // signals that must wait until it is ready for them
};
// fork + execve with a clean signal mask but for those; an exec failure is returned here.
Result<PidFd> SpawnProcess(const SpawnOptions& options);

// Closes every fd but `keep` and 0, 1, 2: first thing in a child that was forked and is not to
// have what its parent has.
void CloseAllBut(const std::vector<int>& keep);

}  // namespace pulga
