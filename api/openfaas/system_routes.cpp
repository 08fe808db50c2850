#include <sys/utsname.h>

#include <nlohmann/json.hpp>

#include "api/authorization.h"
#include "api/openfaas/metered_route.h"
#include "api/openfaas/replies.h"
#include "api/openfaas/routes.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

std::string InfoJson(const std::string& release, const std::string& provider_name) {
  utsname machine = {};
  uname(&machine);
  // Clients want both; there is no commit of OpenFaaS that this would be.
  const Json version = {{"sha", release}, {"release", release}};
  const Json provider = {
      {"provider", provider_name}, {"version", version}, {"orchestration", "pulga"}};
  return Json({{"provider", provider}, {"version", version}, {"arch", machine.machine}}).dump() +
         "\n";
}

// "/system/function/{name}" is "/system/function", whatever the name.
std::string_view WithoutNames(std::string_view pattern) {
  const std::string_view path = pattern.substr(0, pattern.find("/{"));
  return path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
}

RouteHandler Counted(const Route& route, const OpenFaasContext& context) {
  return Metered(route.handler, context.loop,
                 [metrics = context.metrics, method = route.method,
                  path = std::string(WithoutNames(route.pattern))](int status, Duration time) {
                   metrics->NoteManaged({method, path}, status, time);
                 });
}

void AddSystemRoutes(Router& router, Engine& engine, const OpenFaasOptions& options) {
  // AlertManager's word that a function is busy. The autoscaler has seen it for itself.
  router.Add("POST", "/system/alert", [](HttpExchange& exchange, const PathParams&) {
    return WithJsonBody(exchange,
                        [](const JsonObject&, const ReplyDone& done) { done(EmptyReply(200)); });
  });
  router.Add("GET", "/system/info", [&engine, options](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange,
                       JsonReply(200, InfoJson(engine.System().version, options.provider_name)));
  });
}

}  // namespace

void AddMetricsRoute(Router& router, Engine& engine, std::shared_ptr<GatewayMetrics> metrics) {
  router.Add("GET", "/metrics", [&engine, metrics](HttpExchange& exchange, const PathParams&) {
    const auto who = HolderOfKeyOrLogin(exchange.request(), engine);
    if (!who) return Immediately(exchange, InvalidCredentialsReply());
    if (!MayAsk(*who, Action::kSeeBoard)) {
      return Immediately(exchange, TextErrorReply(403, RefusalText(*who, Action::kSeeBoard)));
    }
    HttpReply reply;
    reply.headers = {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"},
                     {"Cache-Control", "no-store"}};
    reply.body = metrics->Text(engine.Functions(), engine.System());
    return Immediately(exchange, std::move(reply));
  });
}

void AddOpenFaasRoutes(Router& router, Engine& engine, const OpenFaasContext& context) {
  Router managed;
  AddOpenFaasFunctionRoutes(managed, engine, context.options);
  AddOpenFaasNamespaceRoutes(managed, engine);
  AddOpenFaasSecretRoutes(managed, engine);
  AddOpenFaasLogRoutes(managed, engine);
  AddSystemRoutes(managed, engine, context.options);
  for (const Route& route : managed.routes()) {
    router.Add(route.method, route.pattern, Counted(route, context), route.query);
  }
  router.Add("GET", "/", [](HttpExchange& exchange, const PathParams&) {
    HttpReply reply = EmptyReply(301);
    reply.headers.emplace_back("Location", "/ui/");
    return Immediately(exchange, std::move(reply));
  });
}

}  // namespace pulga
