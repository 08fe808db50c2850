#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/log_stream.h"
#include "api/native/routes.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kDefaultTail = 100;
constexpr size_t kMaxTail = 10000;

Result<LogRequest> RequestOf(std::string_view query) {
  LogRequest request;
  request.format = LogLineJson;
  const std::string tail = QueryValue(query, "tail").value_or(std::to_string(kDefaultTail));
  request.query.tail = ParseUint(tail, kMaxTail);
  if (!request.query.tail) {
    return Error{Code::kInvalidArgument, 0,
                 "tail must be a number from 0 to " + std::to_string(kMaxTail) + ", not \"" +
                     Printable(tail, 40) + "\""};
  }
  if (const auto since = QueryValue(query, "since")) {
    request.query.since_unix_ms = ParseRfc3339(*since);
    if (!request.query.since_unix_ms) {
      return Error{
          Code::kInvalidArgument, 0,
          "since must be a time as in 2026-01-31T12:00:00Z, not \"" + Printable(*since, 40) + "\""};
    }
  }
  if (QueryValue(query, "follow") == "1") request.follow = LogRequest::Follow::kYes;
  return request;
}

}  // namespace

std::unique_ptr<HttpHandler> MakeLogHandler(HttpExchange& exchange, Engine& engine,
                                            const FunctionKey& key) {
  const auto exists = engine.Function(key);
  auto request = RequestOf(exchange.request().query());
  Status refused = exists.ok() ? Status(request) : Status(exists);
  if (!refused.ok()) {
    return Immediately(exchange, ErrorReply(ToApiError(refused.error(), "function")));
  }
  request->key = key;
  return StreamLog(exchange, engine, std::move(*request));
}

}  // namespace pulga
