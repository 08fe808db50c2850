// What a function is told about a request, in each mode: the HTTP head for its own server, the same
// for a frames function, the Http_* environment for a program. Pure.
// Source: the OpenFaaS gateway (added headers), docs/api.md "What an exec function sees".
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/invocation.h"

namespace pulga {

inline constexpr size_t kMaxHeaderVariables = 100;
inline constexpr size_t kMaxHeaderVariableBytes = 32 * 1024;  // all of them together

// Request line and headers up to and including the empty line. Framing is rebuilt: Content-Length
// where it is known, else chunked. X-Call-Id, X-Start-Time and X-Forwarded-* are added if absent.
std::string BuildRequestHead(const InvocationRequest& request,
                             std::chrono::system_clock::time_point now);

// The same as the payload of a HEAD frame (frames_wire.h), where nothing need be escaped or framed;
// Content-Length is there if it is known. Headers that do not fit any more are left out; "":
// method, path and query do not.
std::string BuildRequestFrame(const InvocationRequest& request,
                              std::chrono::system_clock::time_point now);

// "Http_Method=GET", ..., "PULGA_CALL_ID=..."; of the caller's headers those beyond the limits
// are left out.
std::vector<std::string> BuildRequestEnvironment(const InvocationRequest& request,
                                                 std::chrono::system_clock::time_point now);

// Whether "NAME=value" has a name that only a request may set: PULGA_CALL_ID, Http_*.
bool IsRequestVariable(std::string_view entry);

// May be sent twice without harm (RFC 9110, 9.2.2).
bool IsIdempotent(std::string_view method);

}  // namespace pulga
