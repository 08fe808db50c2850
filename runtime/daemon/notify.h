// Tells the service manager how we are, as sd_notify(3) does: one datagram to $NOTIFY_SOCKET.
// Without that variable nothing happens. Source: sd_notify(3), "Implementation notes".
#pragma once

#include <string_view>

namespace pulga {

// "READY=1", "STOPPING=1", "RELOADING=1", several lines allowed.
void NotifyServiceManager(std::string_view state);

}  // namespace pulga
