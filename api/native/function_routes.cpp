#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "runtime/spec_json.h"

namespace pulga {
namespace {

constexpr size_t kSmallBody = 64 * 1024;

HttpReply Refusal(const Error& error, std::string_view object) {
  return ErrorReply(ToApiError(error, object));
}

// Calls `then` with the function's key, or replies 400 naming the rule for names.
template <typename Then>
std::unique_ptr<HttpHandler> WithKey(HttpExchange& exchange, const PathParams& params, Then then) {
  const Status valid = ValidateFunctionName(params.name);
  if (!valid.ok()) {
    ApiError error = ToApiError(valid.error(), "function");
    error.code = "invalid_name";
    return Immediately(exchange, ErrorReply(error));
  }
  FunctionKey key;
  key.name = params.name;
  return then(key);
}

// What was asked for and is not so; limits this kernel does not enforce come last.
std::string Described(const FunctionStatus& status, std::vector<std::string> warnings) {
  const std::vector<std::string>& unenforced = status.activity.warnings;
  warnings.insert(warnings.end(), unenforced.begin(), unenforced.end());
  return FunctionJson(status, warnings);
}

HttpReply PutReply(const Result<PutReport>& put, std::string_view missing) {
  if (!put.ok()) return Refusal(put.error(), missing);
  const int status = put->effect == PutReport::Effect::kCreated ? 201 : 200;
  return JsonReply(status, Described(put->status, put->warnings));
}

std::unique_ptr<HttpHandler> Put(HttpExchange& exchange, Engine& engine, const FunctionKey& key) {
  return WithBody(exchange, kMaxSpecBytes, [&engine, key](std::string body, ReplyDone done) {
    auto spec = SpecFromJson(body);
    Status valid = spec.ok() ? Validate(*spec) : Status(spec);
    if (!valid.ok()) {
      ApiError error = ToApiError(valid.error(), "function");
      if (error.status == 400) error.code = "invalid_spec";
      return done(ErrorReply(error));
    }
    engine.PutFunction(key, std::move(*spec),
                       [done](Result<PutReport> put) { done(PutReply(put, "image")); });
  });
}

std::unique_ptr<HttpHandler> Show(HttpExchange& exchange, Engine& engine, const FunctionKey& key) {
  const auto status = engine.Function(key);
  if (!status.ok()) return Immediately(exchange, Refusal(status.error(), "function"));
  return Immediately(exchange, JsonReply(200, Described(*status, {})));
}

std::unique_ptr<HttpHandler> Delete(HttpExchange& exchange, Engine& engine,
                                    const FunctionKey& key) {
  return WithBody(exchange, kSmallBody, [&engine, key](std::string, ReplyDone done) {
    engine.DeleteFunction(key, [done](Status deleted) {
      done(deleted.ok() ? EmptyReply(204) : Refusal(deleted.error(), "function"));
    });
  });
}

std::unique_ptr<HttpHandler> RollBack(HttpExchange& exchange, Engine& engine,
                                      const FunctionKey& key) {
  return WithBody(exchange, kSmallBody, [&engine, key](std::string body, ReplyDone done) {
    const auto version = ParseRollbackBody(body);
    if (!version.ok()) return done(Refusal(version.error(), "function"));
    // Without the function the version can not be the missing thing.
    const auto exists = engine.Function(key);
    if (!exists.ok()) return done(Refusal(exists.error(), "function"));
    engine.Rollback(key, *version,
                    [done](Result<PutReport> put) { done(PutReply(put, "version")); });
  });
}

std::unique_ptr<HttpHandler> Scale(HttpExchange& exchange, Engine& engine, const FunctionKey& key) {
  return WithBody(exchange, kSmallBody, [&engine, key](std::string body, ReplyDone done) {
    const auto wanted = ParseScaleBody(body);
    if (!wanted.ok()) return done(Refusal(wanted.error(), "function"));
    const Status scaled = engine.Scale(key, *wanted);
    if (!scaled.ok()) return done(Refusal(scaled.error(), "function"));
    const auto status = engine.Function(key);
    done(status.ok() ? JsonReply(200, FunctionJson(*status, {}))
                     : Refusal(status.error(), "function"));
  });
}

using KeyHandler = std::unique_ptr<HttpHandler> (*)(HttpExchange&, Engine&, const FunctionKey&);

void AddKeyed(Router& router, Engine& engine, const char* method, const char* pattern,
              KeyHandler handle, std::vector<QueryParam> query = {}) {
  const auto keyed = [&engine, handle](HttpExchange& exchange, const PathParams& params) {
    return WithKey(exchange, params,
                   [&](const FunctionKey& key) { return handle(exchange, engine, key); });
  };
  router.Add(method, pattern, keyed, std::move(query));
}

}  // namespace

void AddFunctionRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/functions", [&engine](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange, JsonReply(200, FunctionListJson(engine.Functions())));
  });
  AddKeyed(router, engine, "PUT", "/v1/functions/{name}", &Put);
  AddKeyed(router, engine, "GET", "/v1/functions/{name}", &Show);
  AddKeyed(router, engine, "DELETE", "/v1/functions/{name}", &Delete);
  AddKeyed(router, engine, "POST", "/v1/functions/{name}/rollback", &RollBack);
  AddKeyed(router, engine, "POST", "/v1/functions/{name}/scale", &Scale);
  AddKeyed(router, engine, "GET", "/v1/functions/{name}/logs", &MakeLogHandler,
           {{"tail"}, {"since"}, {"follow", QueryParam::Kind::kFlag}});
}

}  // namespace pulga
