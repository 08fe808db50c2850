// Callbacks over the network: each message is POSTed by a pulga-fetcher of its own, which alone
// talks to strangers (images/fetch/callback_errand.h). Loop thread; nothing blocks: the message is
// handed over in memory, and the fetcher's few words are read at its end.
#pragma once

#include <functional>
#include <vector>

#include "base/event_loop.h"
#include "runtime/tasks/callback_run.h"
#include "sandbox/sandbox.h"

namespace pulga {

// `networks`: where to it may lead beside public addresses, asked each time. `loop` and `sandbox`
// outlive what is made and its posts.
PostCallback MakeCallbackPost(EventLoop& loop, Sandbox& sandbox,
                              std::function<std::vector<NetworkPrefix>()> networks);

}  // namespace pulga
