#include <nlohmann/json.hpp>
#include <utility>

#include "api/openfaas/replies.h"
#include "api/openfaas/routes.h"
#include "base/text.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMark = "openfaas";  // the label, "1", of namespaces that hold functions

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

HttpReply Outcome(const Status& status, int fine) {
  if (status.ok()) return EmptyReply(fine);
  return TextErrorReply(status.error(), "namespace");
}

HttpReply ShowReply(Engine& engine, const std::string& name) {
  const auto found = engine.namespaces().Find(name);
  if (!found.ok()) return TextErrorReply(found.error(), "namespace");
  Json out = {{"name", found->name}};
  if (!found->annotations.empty()) out["annotations"] = Json(found->annotations);
  if (!found->labels.empty()) out["labels"] = Json(found->labels);
  return JsonReply(200, Dump(out));
}

// What a body says, or why it is none.
Result<NamespaceRecord> ParseNamespace(const JsonObject& body) {
  NamespaceRecord record;
  record.name = body.Text("name");
  record.labels = body.TextMap("labels");
  record.annotations = body.TextMap("annotations");
  PULGA_RETURN_IF_ERROR(body.status());
  if (record.name.empty()) return Error{Code::kInvalidArgument, 0, "name: missing"};
  const auto mark = record.labels.find(kMark);
  if (mark != record.labels.end() && mark->second == "1") return record;
  return Error{Code::kInvalidArgument, 0, "request does not have openfaas=1 label"};
}

std::unique_ptr<HttpHandler> HandlePut(HttpExchange& exchange, Engine& engine,
                                       const std::string& path_name) {
  const auto put = [&engine, path_name](const JsonObject& body, const ReplyDone& done) {
    auto record = ParseNamespace(body);
    if (!record.ok()) return done(TextErrorReply(400, record.error().message));
    const bool creating = path_name.empty();
    if (!creating && record->name != path_name) {
      return done(TextErrorReply(400, "the names in body and path differ"));
    }
    const auto write = creating ? Namespaces::Write::kCreate : Namespaces::Write::kReplace;
    engine.namespaces().Put(std::move(*record), write, [creating, done](const Status& stored) {
      done(Outcome(stored, creating ? 201 : 202));
    });
  };
  return WithJsonBody(exchange, put);
}

std::unique_ptr<HttpHandler> HandleDelete(HttpExchange& exchange, Engine& engine,
                                          const std::string& name) {
  return WithJsonBody(exchange, [&engine, name](const JsonObject&, const ReplyDone& done) {
    engine.namespaces().Remove(name,
                               [done](const Status& removed) { done(Outcome(removed, 202)); });
  });
}

}  // namespace

void AddOpenFaasNamespaceRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/system/namespaces", [&engine](HttpExchange& exchange, const PathParams&) {
    Json names = Json::array();
    for (const NamespaceRecord& record : engine.namespaces().List()) names.push_back(record.name);
    return Immediately(exchange, JsonReply(200, Dump(names)));
  });
  // That is how clients create one.
  router.Add("POST", "/system/namespace/", [&engine](HttpExchange& exchange, const PathParams&) {
    return HandlePut(exchange, engine, "");
  });
  router.Add("GET", "/system/namespace/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return Immediately(exchange, ShowReply(engine, params.name));
             });
  router.Add("PUT", "/system/namespace/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return HandlePut(exchange, engine, params.name);
             });
  router.Add("DELETE", "/system/namespace/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return HandleDelete(exchange, engine, params.name);
             });
}

}  // namespace pulga
