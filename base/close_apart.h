// Closing a descriptor whose last close may take its time, so that the caller does not wait: what
// lies unread in a Unix socket may hold connections that linger (SO_LINGER) or files whose blocks
// are freed then. A thread of its own shares the descriptor, lets the caller close it, and ends;
// the kernel lets no connection linger for a thread that ends. Any thread; takes as long as
// starting a thread. Where none can be started the caller closes, and may wait. Source:
// inet_release (net/ipv4/af_inet.c), PF_EXITING.
#pragma once

#include "base/unique_fd.h"

namespace pulga {

void CloseApart(UniqueFd fd);

}  // namespace pulga
