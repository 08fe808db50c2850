#include "api/handlers.h"
#include "api/native/routes.h"
#include "api/secret_codec.h"
#include "sandbox/secret_file.h"

namespace pulga {
namespace {

HttpReply Refusal(const Error& error) { return ErrorReply(ToApiError(error, "secret")); }

FunctionKey KeyOf(const PathParams& params) {
  FunctionKey key;
  key.name = params.name;
  return key;
}

Result<SecretWrite> WriteOf(std::string_view query) {
  const std::optional<std::string> only = QueryValue(query, "only");
  if (!only) return SecretWrite::kEither;
  if (*only == "new") return SecretWrite::kCreate;
  if (*only == "existing") return SecretWrite::kReplace;
  return Error{Code::kInvalidArgument, 0, "only: \"new\" or \"existing\" is expected"};
}

std::unique_ptr<HttpHandler> Put(Engine& engine, HttpExchange& exchange, const PathParams& params) {
  const auto write = WriteOf(exchange.request().query());
  if (!write.ok()) return Immediately(exchange, Refusal(write.error()));
  return WithBody(exchange, kMaxSecretBytes,
                  [&engine, key = KeyOf(params), write = *write](std::string body, ReplyDone done) {
                    engine.PutSecret(
                        key, std::move(body), write, [done](const Result<SecretPut>& put) {
                          if (!put.ok()) return done(Refusal(put.error()));
                          const bool is_new = put->effect == SecretPut::Effect::kCreated;
                          done(JsonReply(is_new ? 201 : 200, SecretJson(put->secret)));
                        });
                  });
}

std::unique_ptr<HttpHandler> Remove(Engine& engine, HttpExchange& exchange,
                                    const PathParams& params) {
  const bool forced = QueryValue(exchange.request().query(), "force") == "1";
  const auto removal = forced ? SecretRemoval::kForced : SecretRemoval::kUnused;
  const auto remove = [&engine, key = KeyOf(params), removal](const std::string&,
                                                              const ReplyDone& done) {
    engine.RemoveSecret(key, removal, [done](const Status& removed) {
      if (removed.ok()) return done(EmptyReply(204));
      ApiError error = ToApiError(removed.error(), "secret");
      if (error.status == 409) error.code = "secret_in_use";
      done(ErrorReply(error));
    });
  };
  return WithBody(exchange, 0, remove);
}

}  // namespace

void AddSecretRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/secrets", [&engine](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange, JsonReply(200, SecretListJson(engine.Secrets())));
  });
  router.Add("PUT", "/v1/secrets/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return Put(engine, exchange, params);
             },
             {{"only"}});
  router.Add("DELETE", "/v1/secrets/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return Remove(engine, exchange, params);
             },
             {{"force", QueryParam::Kind::kFlag}});
}

}  // namespace pulga
