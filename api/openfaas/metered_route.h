// A route whose requests are timed: from their head until the exchange is over. Loop thread.
#pragma once

#include <functional>

#include "api/router.h"
#include "base/clock.h"
#include "base/event_loop.h"

namespace pulga {

// `status`: what the client got; 499 where it had left.
using RequestNote = std::function<void(int status, Duration time)>;
RouteHandler Metered(RouteHandler route, EventLoop& loop, RequestNote note);

}  // namespace pulga
