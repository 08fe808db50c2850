// Network namespaces made ahead of need, in the spawner's own user namespace: `lo` up, every port
// open to unprivileged binds. Making one costs 0.5-0.75 ms, so it is done after replies, never
// before one; taking one costs nothing. With outbound network each is sent to the launcher, too,
// and is ready once that has attached it (attach_protocol.h); tens of milliseconds later. Spawner
// only, single thread. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the user namespace, and the
// spawner's own proc at /proc. Source: docs/architecture.md, law 3.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/unique_fd.h"
#include "sandbox/privileges.h"

namespace pulga {

// Brings `lo` up in the caller's network namespace and lets any port be bound without capability.
StepResult PrepareNetns();

struct SpareNetns {
  UniqueFd fd;
  uint32_t number = 0;  // as the launcher knows it
};

// `count` non-blocking TCP sockets made in the caller's present namespace; 0 or the errno.
int MakeTcpSockets(std::vector<UniqueFd>& fds, uint16_t count);

class NetnsPool {
 public:
  // Remembers the caller's own namespace, to which every call returns. `attach_fd`: the launcher,
  // or -1 when no namespace needs it.
  StepResult Init(uint16_t spare, int attach_fd);
  // Up to `at_most` new ones, until `spare` are ready or on their way.
  StepResult Refill(uint16_t at_most);
  // Invalid with errno set when none could be had; makes one when none is ready, and waits for it
  // by `await`: false when attach_fd() did not become readable in time.
  SpareNetns Take(const std::function<bool()>& await);
  // An instance's, when the instance is dead.
  void Release(SpareNetns used);
  // `fds` non-blocking TCP sockets made inside `netns`; 0 or the errno.
  int MakeSockets(int netns, std::vector<UniqueFd>& fds, uint16_t count) const;
  // After a refusal only Take() tries again, or the launcher would be asked without an end.
  bool full() const { return refused_ != 0 || ready_.size() + waiting_.size() >= spare_; }
  int attach_fd() const { return attach_fd_; }  // readable: call OnAnswer
  void OnAnswer();

 private:
  StepResult Attach(UniqueFd fd);

  UniqueFd own_;
  uint16_t spare_ = 0;
  int attach_fd_ = -1;
  uint32_t next_number_ = 1;
  int refused_ = 0;  // errno of the launcher's last refusal
  std::vector<SpareNetns> ready_;
  std::vector<SpareNetns> waiting_;  // for the launcher
};

}  // namespace pulga
