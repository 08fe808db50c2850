// One errand of kind kPost: a message is POSTed to a URL that a stranger chose, and the answer's
// status told. No proxy, no redirect, no credentials; an address that is not public is refused
// unless the order's networks hold it, and so are the board's own. The check is of the address
// that is connected to. Blocks. Errors: kInvalidArgument (no such URL or message), kPermission (an
// address it must not lead to), kTimeout, kUnavailable.
#pragma once

#include "base/result.h"
#include "images/fetch/fetch_wire.h"
#include "images/fetch/http_transport.h"

namespace pulga {

// The message: PostOrder's, in `input_fd`. Ok: the HTTP status, 100 to 599.
Result<int> RunCallback(const PostOrder& order, HttpTransport& transport, int input_fd);
// Addresses of this board's interfaces.
Result<std::vector<NetworkPrefix>> OwnAddresses();

}  // namespace pulga
