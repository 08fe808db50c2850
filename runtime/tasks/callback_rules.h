// The rules of callbacks (X-Callback-Url) that need no network: where one may go, what is sent,
// what an answer means. Pure. Whose address a name has is checked when it is connected to
// (images/fetch/callback_errand.h). Errors: kInvalidArgument, in words for who sent the URL.
// Source: docs/async.md, docs/security.md; OpenFaaS, "Async", callbacks.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "images/fetch/net_address.h"
#include "images/fetch/url.h"
#include "runtime/tasks/task.h"

namespace pulga {

// A function of this board, named at its own gateway: http://gateway:8080/function/NAME/..., or,
// queued as one more task, .../async-function/NAME/...
struct GatewayCall {
  FunctionKey function;
  bool queued = false;
  std::string path = "/";
  std::string query;
};
using CallbackTarget = std::variant<GatewayCall, Url>;

inline constexpr size_t kMaxCallbackUrlBytes = 2048;
// `networks`: what may be named beside public addresses (setting callback-networks).
Result<CallbackTarget> ParseCallbackUrl(std::string_view text,
                                        const std::vector<NetworkPrefix>& networks);

// Whose callbacks wait together when one fails: the server or, from '/' on, the function of this
// board. Of any text.
std::string ReceiverOf(std::string_view url);
inline bool IsFunctionReceiver(std::string_view receiver) { return receiver.starts_with('/'); }

// The headers of the answer, and of ours X-Call-Id, X-Duration-Seconds, X-Function-Name and
// X-Function-Status. Nothing about framing, nothing that is no header.
HeaderList CallbackHeaders(const Task& task, const std::string& invoked_as,
                           const HeaderList& answer);

struct CallbackVerdict {
  CallbackState state = CallbackState::kDelivered;  // kOwed: again, after `wait`
  Duration wait{0};
  std::string error;  // of what was not delivered
};
inline constexpr uint32_t kCallbackTries = 6;
inline constexpr Duration kLongestCallbackWait = std::chrono::seconds(256);
// Of the `tries`-th try, which the receiver answered with this status, or did not.
CallbackVerdict JudgeCallback(uint32_t tries, const Result<int>& status);

}  // namespace pulga
