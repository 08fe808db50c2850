#include "runtime/refused_invocation.h"

#include <utility>

namespace pulga {

RefusedInvocation::RefusedInvocation(EventLoop& loop, InvocationObserver& observer, Outcome outcome,
                                     std::string text)
    : outcome_(std::move(outcome)), text_(std::move(text)) {
  receipt_.queue_ms = 0;
  head_.content_length = 0;
  head_.final_outcome_known = true;
  loop.Post([observer = &observer, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired()) observer->OnHead();
  });
}

ReadResult RefusedInvocation::Read(char*, size_t) { return {ReadState::kEnd, 0}; }

}  // namespace pulga
