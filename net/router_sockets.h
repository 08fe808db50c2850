// The sockets of the router's network namespace: a socket belongs to the namespace it was made in,
// so who is given one of these can serve there without ever having entered it.
// Needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE in that namespace. Errors name the
// socket. Source: ip(7) IP_TRANSPARENT; kernel Documentation/networking/tproxy.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/ipv4.h"

namespace pulga {

// Appends those from RouterFd::kTcpRelay on, in that order, non-blocking.
Status MakeRouterSockets(Ipv4 router, std::vector<UniqueFd>& out);

}  // namespace pulga
