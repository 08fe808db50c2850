// A route whose requests are timed: from their head until the exchange is over. Who left before
// there was a reply is not counted, as there is no status. Loop thread.
#pragma once

#include <functional>

#include "api/router.h"
#include "base/clock.h"
#include "base/event_loop.h"

namespace pulga {

// `status`: what the client got.
using RequestNote = std::function<void(int status, Duration time)>;
RouteHandler Metered(RouteHandler route, EventLoop& loop, RequestNote note);

}  // namespace pulga
