// The one place where an Error's code, an import's reason or an invocation's outcome becomes an
// HTTP status, a stable error code and words. Pure. Nothing of the host (paths) passes through
// here. Source: docs/api.md "Outcomes -> HTTP" and "Errors under /v1"; the OpenFaaS gateway.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/http_message.h"
#include "base/result.h"
#include "images/importer.h"
#include "runtime/invocation.h"
#include "sandbox/outcome.h"

namespace pulga {

struct ApiError {
  int status = 500;
  std::string code;     // stable: "image_not_found"
  std::string message;  // what, where, what to do
  std::vector<std::pair<std::string, std::string>> details;
};

// `object` is what the call was about ("image", "function"): kNotFound becomes "image_not_found".
ApiError ToApiError(const Error& error, std::string_view object);
ApiError ToApiError(const ImportReport& failed);

// The JSON reply under /v1, with Retry-After where trying again makes sense.
HttpReply ErrorReply(const ApiError& error);

// Replies on /function are plain text in OpenFaaS's words; JSON iff Accept names it.
enum class ErrorForm : uint8_t { kText, kJson };
ErrorForm PreferredForm(const HttpRequest& request);
struct FailedCall {
  const Outcome& outcome;
  std::string text;      // Invocation::FailureText()
  std::string function;  // "NAME.NAMESPACE"
  uint32_t retry_after_s = 0;
};
// For a call whose function produced no reply.
HttpReply FailedCallReply(const FailedCall& call, ErrorForm form);
// For one that is refused before there is an invocation: with the receipt of a call for which
// nothing was started. The outcome is "rejected:" and the error's code.
HttpReply RefusedCallReply(const ApiError& error, ErrorForm form, std::string call_id);

// Absolute paths in `message` replaced by their last part.
std::string WithoutHostPaths(std::string_view message);

}  // namespace pulga
