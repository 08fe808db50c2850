// A function's log as a chunked reply of lines: those there are, and, when it follows, those to
// come. Its head is sent at once, whether there is a line or not. Loop thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "api/http_handler.h"
#include "runtime/engine.h"

namespace pulga {

struct LogRequest {
  FunctionKey key;
  LogQuery query;
  enum class Follow { kNo, kYes } follow = Follow::kNo;
  std::function<std::string(const LogLine&)> format;  // a line of JSON
};
// A follower that is 256 KiB behind what came since it began is cut off: the buffer is ours.
std::unique_ptr<HttpHandler> StreamLog(HttpExchange& exchange, Engine& engine, LogRequest request);

// RFC 3339 with a time zone: milliseconds since 1970, or nothing.
std::optional<int64_t> ParseRfc3339(std::string_view text);

}  // namespace pulga
