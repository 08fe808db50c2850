#include <nlohmann/json.hpp>

#include "api/openfaas/replies.h"
#include "api/openfaas/routes.h"
#include "base/text.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

// A value of 1 MiB twice: in base64, and as text in which every byte may have become three.
constexpr size_t kMaxSecretBody = 8 << 20;

HttpReply Refusal(const Error& error) { return TextErrorReply(error, "secret"); }

constexpr const char* kNoNamespace = "namespace not valid";

Result<FunctionKey> KeyOf(Engine& engine, const JsonObject& body, std::string_view query) {
  FunctionKey key;
  key.name = body.Text("name");
  key.name_space = NamespaceOf(body, query);
  PULGA_RETURN_IF_ERROR(body.status());
  PULGA_RETURN_IF_ERROR(CheckSecretName(key.name));
  if (engine.namespaces().Find(key.name_space).ok()) return key;
  return Error{Code::kInvalidArgument, 0, kNoNamespace};
}

// `rawValue` wins: beside it clients send what became of the bytes as text.
Result<std::string> ValueOf(const JsonObject& body) {
  const std::string raw = body.Text("rawValue");
  std::string value = body.Text("value");
  PULGA_RETURN_IF_ERROR(body.status());
  if (raw.empty()) return value;
  auto bytes = Base64Decode(raw);
  if (bytes) return std::move(*bytes);
  return Error{Code::kInvalidArgument, 0, "rawValue: base64 is expected"};
}

std::string ListJson(const Engine& engine, const std::string& name_space) {
  Json list = Json::array();
  for (const SecretView& secret : engine.Secrets()) {
    if (secret.key.name_space != name_space) continue;
    list.push_back({{"name", secret.key.name}, {"namespace", secret.key.name_space}});
  }
  return list.dump() + "\n";
}

// As faasd, creating one that exists gives it another value.
std::unique_ptr<HttpHandler> Put(Engine& engine, HttpExchange& exchange, SecretWrite write) {
  const std::string query(exchange.request().query());
  const auto put = [&engine, query, write](const JsonObject& body, const ReplyDone& done) {
    const auto key = KeyOf(engine, body, query);
    if (!key.ok()) return done(Refusal(key.error()));
    auto value = ValueOf(body);
    if (!value.ok()) return done(Refusal(value.error()));
    engine.PutSecret(*key, std::move(*value), write, [done](const Result<SecretPut>& stored) {
      done(stored.ok() ? EmptyReply(200) : Refusal(stored.error()));
    });
  };
  return WithJsonBody(exchange, put, kMaxSecretBody);
}

std::unique_ptr<HttpHandler> Remove(Engine& engine, HttpExchange& exchange) {
  const std::string query(exchange.request().query());
  return WithJsonBody(exchange, [&engine, query](const JsonObject& body, const ReplyDone& done) {
    const auto key = KeyOf(engine, body, query);
    if (!key.ok()) return done(Refusal(key.error()));
    engine.RemoveSecret(*key, SecretRemoval::kUnused, [done](const Status& removed) {
      done(removed.ok() ? EmptyReply(200) : Refusal(removed.error()));
    });
  });
}

}  // namespace

void AddOpenFaasSecretRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/system/secrets", [&engine](HttpExchange& exchange, const PathParams&) {
    const std::string name_space = NamespaceOf(exchange.request().query());
    if (!engine.namespaces().Find(name_space).ok()) {
      return Immediately(exchange, TextErrorReply(400, kNoNamespace));
    }
    return Immediately(exchange, JsonReply(200, ListJson(engine, name_space)));
  });
  router.Add("POST", "/system/secrets", [&engine](HttpExchange& exchange, const PathParams&) {
    return Put(engine, exchange, SecretWrite::kEither);
  });
  router.Add("PUT", "/system/secrets", [&engine](HttpExchange& exchange, const PathParams&) {
    return Put(engine, exchange, SecretWrite::kReplace);
  });
  router.Add("DELETE", "/system/secrets", [&engine](HttpExchange& exchange, const PathParams&) {
    return Remove(engine, exchange);
  });
}

}  // namespace pulga
