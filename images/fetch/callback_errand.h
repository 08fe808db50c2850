// One errand of kind kPost: a message is POSTed to a URL that a stranger chose, and the answer's
// status told. No proxy, no redirect, no credentials; an address that is not public is refused
// unless the order's networks hold it, and so are the board's own. The check is of the address
// that is connected to. Blocks.
#pragma once

#include "base/result.h"
#include "images/fetch/fetch_wire.h"
#include "images/fetch/http_transport.h"

namespace pulga {

// The message: PostOrder's, in `input_fd`. An error says that nothing was tried, and nothing about
// the receiver. Else `answer` is its HTTP status, 100 to 599; or why there is none:
// kInvalidArgument (no such URL or message), kPermission (an address it must not lead to),
// kUnavailable.
Status RunCallback(const PostOrder& order, HttpTransport& transport, int input_fd,
                   Result<int>* answer);
// Addresses of this board's interfaces; of IPv6 all that are on the same links. Those are global
// addresses, and what is behind them trusts its neighbours as if they were not.
Result<std::vector<NetworkPrefix>> OwnAddresses();

}  // namespace pulga
