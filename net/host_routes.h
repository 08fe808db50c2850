// What the host's own network looks like at this moment: where an address would be sent to, and
// which addresses are the host's. Asks the kernel each time, so nothing can be out of date.
// Router only, loop thread; the kernel answers at once. Source: rtnetlink(7), RTM_F_FIB_MATCH.
#pragma once

#include <functional>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "net/egress_policy.h"

namespace pulga {

class HostRoutes {
 public:
  static Result<HostRoutes> Open();
  // kNone when there is no way, or the kernel would not say.
  RouteKind Find(Ipv4 address) const;

 private:
  explicit HostRoutes(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

Result<std::vector<Ipv4>> HostAddresses();
// Calls `changed` whenever an address came or went.
Result<UniqueFd> WatchHostAddresses(EventLoop& loop, std::function<void()> changed);

}  // namespace pulga
