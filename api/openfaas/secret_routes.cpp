#include <nlohmann/json.hpp>

#include "api/openfaas/replies.h"
#include "api/openfaas/routes.h"
#include "base/text.h"
#include "sandbox/secret_file.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

// A value twice: in base64, and as text in which every byte may be escaped ("\ufffd").
constexpr size_t kMaxSecretBody = 6 * kMaxSecretBytes + 4 * (kMaxSecretBytes / 3 + 1) + 64 * 1024;
constexpr size_t kReadAtOnce = 64 * 1024;  // a larger one would hold the loop up

HttpReply Refusal(const Error& error) { return TextErrorReply(error, "secret"); }

constexpr const char* kNoNamespace = "namespace not valid";

Result<FunctionKey> KeyOf(const JsonObject& body, std::string_view query) {
  FunctionKey key;
  key.name = body.Text("name");
  key.name_space = NamespaceOf(body, query);
  PULGA_RETURN_IF_ERROR(body.status());
  PULGA_RETURN_IF_ERROR(CheckSecretName(key.name));
  return key;
}

Status CheckNamespace(Engine& engine, const FunctionKey& key) {
  if (engine.namespaces().Find(key.name_space).ok()) return OkStatus();
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
  for (const FunctionKey& secret : engine.SecretKeys()) {
    if (secret.name_space != name_space) continue;
    list.push_back({{"name", secret.name}, {"namespace", secret.name_space}});
  }
  return list.dump() + "\n";
}

struct SecretBody {
  FunctionKey key;
  std::string value;
};

// Any thread.
Result<SecretBody> ReadSecret(std::string_view text, std::string_view query) {
  PULGA_ASSIGN_OR_RETURN(const JsonObject body, JsonObject::Parse(text, kMaxSecretBody));
  SecretBody secret;
  PULGA_ASSIGN_OR_RETURN(secret.key, KeyOf(body, query));
  PULGA_ASSIGN_OR_RETURN(secret.value, ValueOf(body));
  return secret;
}

void Store(Engine& engine, Result<SecretBody> secret, SecretWrite write, const ReplyDone& done) {
  if (!secret.ok()) return done(Refusal(secret.error()));
  const Status there = CheckNamespace(engine, secret->key);
  if (!there.ok()) return done(Refusal(there.error()));
  engine.PutSecret(secret->key, std::move(secret->value), write,
                   [done](const Result<SecretPut>& stored) {
                     done(stored.ok() ? EmptyReply(200) : Refusal(stored.error()));
                   });
}

// As faasd, creating one that exists gives it another value.
std::unique_ptr<HttpHandler> Put(Engine& engine, HttpExchange& exchange, SecretWrite write) {
  const std::string query(exchange.request().query());
  const auto put = [&engine, query, write](std::string text, const ReplyDone& done) {
    if (text.size() <= kReadAtOnce) return Store(engine, ReadSecret(text, query), write, done);
    const auto read = std::make_shared<Result<SecretBody>>(SecretBody());
    engine.Apart([read, query, text = std::move(text)] { *read = ReadSecret(text, query); },
                 [&engine, read, write, done] { Store(engine, std::move(*read), write, done); });
  };
  return WithBody(exchange, kMaxSecretBody, put,
                  [](const Error& error) { return TextErrorReply(error, "body"); });
}

std::unique_ptr<HttpHandler> Remove(Engine& engine, HttpExchange& exchange) {
  const std::string query(exchange.request().query());
  return WithJsonBody(exchange, [&engine, query](const JsonObject& body, const ReplyDone& done) {
    const auto key = KeyOf(body, query);
    if (!key.ok()) return done(Refusal(key.error()));
    const Status there = CheckNamespace(engine, *key);
    if (!there.ok()) return done(Refusal(there.error()));
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
