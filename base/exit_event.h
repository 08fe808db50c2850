// What stands in for a pidfd where the kernel has none (before Linux 5.3): a descriptor that
// becomes readable once a child has ended. The child must not be reaped by anybody else meanwhile;
// then its pid is its own, and kill(2) and wait(2) by it are as safe as by a pidfd. Installs a
// handler of SIGCHLD in this process, which must not have that signal blocked. For processes of one
// thread; a process forked from this one has no events. Owns: the descriptor.
#pragma once

#include <sys/types.h>

#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

class ExitEvent {
 public:
  ExitEvent() = default;
  ExitEvent(ExitEvent&& other) noexcept
      : fd_(std::move(other.fd_)), entry_(std::exchange(other.entry_, -1)) {}
  ExitEvent& operator=(ExitEvent&& other) noexcept;
  ~ExitEvent() { Forget(); }
  static Result<ExitEvent> OfChild(pid_t pid);

  int fd() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }

 private:
  void Forget();

  UniqueFd fd_;
  int entry_ = -1;  // in the handler's table
};

}  // namespace pulga
