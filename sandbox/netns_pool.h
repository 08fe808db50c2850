// Network namespaces made ahead of need, in the spawner's own user namespace: `lo` up, every port
// open to unprivileged binds. Making one costs 0.5-0.75 ms, so it is done after replies, never
// before one; taking one costs nothing.
// Spawner only, single thread. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the user namespace, and the
// spawner's own proc at /proc. Source: docs/architecture.md, law 3.
#pragma once

#include <cstdint>
#include <vector>

#include "base/unique_fd.h"
#include "sandbox/privileges.h"

namespace pulga {

// Brings `lo` up in the caller's network namespace and lets any port be bound without capability.
StepResult PrepareNetns();

class NetnsPool {
 public:
  // Remembers the caller's own namespace, to which every call returns.
  StepResult Init(uint16_t spare);
  // Up to `at_most` new ones, until `spare` are ready.
  StepResult Refill(uint16_t at_most);
  // Invalid with errno set when none could be had; makes one when none is ready.
  UniqueFd Take();
  // `fds` non-blocking TCP sockets made inside `netns`; 0 or the errno.
  int MakeSockets(int netns, std::vector<UniqueFd>& fds, uint16_t count) const;
  bool full() const { return ready_.size() >= spare_; }

 private:
  UniqueFd own_;
  uint16_t spare_ = 0;
  std::vector<UniqueFd> ready_;
};

}  // namespace pulga
