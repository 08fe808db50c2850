#include <nlohmann/json.hpp>

#include "api/json_codec.h"
#include "api/log_stream.h"
#include "api/openfaas/replies.h"
#include "api/openfaas/routes.h"
#include "base/clock.h"
#include "base/text.h"
#include "runtime/call_name.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

// Where a reader begins who says neither when nor how many.
constexpr int64_t kDefaultBackMs = 5 * 60 * 1000;

// As Go's strconv reads them, which the gateway and its clients are written with.
std::optional<bool> ParseFlag(std::string_view text) {
  for (const char* yes : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == no) return false;
  }
  return std::nullopt;
}

std::optional<int64_t> ParseInt(const std::string& text) {
  const bool minus = text.starts_with('-');
  const auto digits = ParseUint(std::string_view(text).substr(minus ? 1 : 0), INT64_MAX);
  if (!digits) return std::nullopt;
  return minus ? -static_cast<int64_t>(*digits) : static_cast<int64_t>(*digits);
}

std::string LineJson(const FunctionKey& key, const LogLine& line) {
  const Json json = {{"name", key.name},
                     {"namespace", key.name_space},
                     {"instance", line.instance},
                     {"timestamp", Rfc3339(line.unix_ms)},
                     {"text", line.text}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// Nothing: a value that is none. An empty one counts as absent.
std::optional<LogRequest> RequestOf(std::string_view query) {
  const auto value = [query](const char* name) { return QueryValue(query, name).value_or(""); };
  LogRequest request;
  request.key.name = value("name");
  request.key.name_space = NamespaceOf(query);
  request.query.instance = value("instance");
  if (const std::string tail = value("tail"); !tail.empty()) {
    const auto lines = ParseInt(tail);
    if (!lines) return std::nullopt;
    if (*lines > 0) request.query.tail = static_cast<size_t>(*lines);
  }
  if (const std::string follow = value("follow"); !follow.empty()) {
    const auto wanted = ParseFlag(follow);
    if (!wanted) return std::nullopt;
    request.follow = *wanted ? LogRequest::Follow::kYes : LogRequest::Follow::kNo;
  }
  if (const std::string since = value("since"); !since.empty()) {
    request.query.since_unix_ms = ParseRfc3339(since);
    if (!request.query.since_unix_ms) return std::nullopt;
  } else if (!request.query.tail) {
    request.query.since_unix_ms = UnixMillis(SystemClock()) - kDefaultBackMs;
  }
  request.format = [key = request.key](const LogLine& line) { return LineJson(key, line); };
  return request;
}

// Of what can be no function's name, and is never part of a path.
HttpReply EmptyLog() {
  HttpReply reply;
  reply.headers = {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}};
  return reply;
}

}  // namespace

// A function that nobody knows has an empty log, as with faasd.
void AddOpenFaasLogRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/system/logs", [&engine](HttpExchange& exchange, const PathParams&) {
    auto request = RequestOf(exchange.request().query());
    if (!request) {
      return Immediately(exchange, TextErrorReply(422, "could not parse the log request"));
    }
    if (!ValidateCallName(request->key).ok()) return Immediately(exchange, EmptyLog());
    return StreamLog(exchange, engine, std::move(*request));
  });
}

}  // namespace pulga
