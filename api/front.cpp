#include "api/front.h"

#include "api/authorization.h"
#include "api/error_mapping.h"
#include "api/handlers.h"
#include "api/native/routes.h"
#include "api/native/tus_rules.h"
#include "api/openfaas/replies.h"
#include "base/log.h"
#include "base/text.h"
#include "net/service_name.h"

namespace pulga {
namespace {

ConnectionPatience PatienceOf(const DaemonConfig& config) {
  ConnectionPatience patience;
  patience.head = config.header_timeout;
  patience.idle = config.keep_alive_timeout;
  patience.body = config.body_timeout;
  patience.reply = config.body_timeout;
  return patience;
}

bool IsCallPath(std::string_view path) {
  return path.starts_with("/function/") || path.starts_with("/async-function/");
}

HttpReply Refusal(const HttpRequest& request, const ApiError& error) {
  const std::string_view path = request.path();
  if (!IsManagementPath(path)) {
    return RefusedCallReply(error, PreferredForm(request), CallIdOf(request));
  }
  HttpReply refusal = ErrorReply(error);
  AddTusVersion(path, &refusal);
  return refusal;
}

HttpReply NoRouteReply(const HttpRequest& request, RouteMatch match) {
  const bool gateway = IsGatewayPath(request.path());
  switch (match.kind) {
    case RouteMatch::Kind::kWrongMethod: {
      if (gateway) return WrongMethodReply(std::move(match.allow));
      const ApiError error{405, "method_not_allowed", "only " + match.allow + " here", {}};
      HttpReply reply = Refusal(request, error);
      reply.headers.emplace_back("Allow", match.allow);
      if (!IsManagementPath(request.path())) reply.body.clear();  // as OpenFaaS' clients know it
      return reply;
    }
    case RouteMatch::Kind::kBadPath: {
      const char* text = "the path holds a name that is empty, too long or badly percent-encoded";
      if (gateway) return TextErrorReply(400, text);
      return Refusal(request, {400, "invalid_path", text, {}});
    }
    default:
      if (gateway) return PageNotFoundReply();
      return Refusal(request, {404, "not_found", "404 page not found", {}});
  }
}

// By Host, as a web server tells its sites apart. Nothing: the gateway is meant.
std::optional<ServiceName> FunctionAsHost(const HttpRequest& request) {
  const std::string* host = request.Header("Host");
  if (!request.from_function || host == nullptr) return std::nullopt;
  std::string name = ToLower(std::string_view(*host).substr(0, host->rfind(':')));
  if (name.ends_with('.')) name.pop_back();
  auto service = ParseServiceName(name);
  if (service && service->is_gateway()) return std::nullopt;
  return service;
}

}  // namespace

void AddAllRoutes(Router& router, Engine& engine, EventLoop& loop, const OpenFaasOptions& options) {
  const auto metrics = std::make_shared<GatewayMetrics>();
  // OpenFaaS' queue worker calls through the gateway, which counts its calls like all others.
  engine.tasks().Watch({[metrics](const FunctionKey& key) { metrics->NoteStarted(key); },
                        [metrics](const FunctionKey& key, int status, Duration time) {
                          metrics->NoteEnded(key, status, time);
                        }});
  AddCallRoutes(router, {engine, loop, metrics, "pulga/" + engine.System().version});
  AddAsyncRoutes(router, engine);
  AddUpkeepRoutes(router, engine);
  AddImageRoutes(router, engine);
  AddUploadRoutes(router, engine);
  AddFunctionRoutes(router, engine);
  AddVolumeRoutes(router, engine);
  AddTaskRoutes(router, engine);
  AddSecretRoutes(router, engine);
  AddAccountRoutes(router, engine);
  AddSystemRoutes(router, engine);
  AddOpenFaasRoutes(router, engine, {loop, metrics, options});
  AddMetricsRoute(router, engine, metrics);
}

Result<std::unique_ptr<Front>> ApiFront::Create(EventLoop& loop, Engine& engine,
                                                const DaemonConfig& config) {
  std::unique_ptr<ApiFront> front(new ApiFront(engine));
  front->call_access_ = config.call_access;
  AddAllRoutes(front->router_, engine, loop, {config.provider_name, config.openfaas_timeout});
  HttpServerConfig http;
  for (const std::string& text : config.listen) {
    PULGA_ASSIGN_OR_RETURN(ListenAddress address, ParseListenAddress(text));
    http.listen.push_back(std::move(address));
  }
  http.limits.tcp = config.max_connections;
  http.limits.per_address = std::max(config.max_connections / 4 * 3, 4U);
  // Calls under way are never cut for a caller's sake: so functions never get all there is.
  http.limits.functions = config.max_connections / 2;
  http.limits.per_function = std::max(config.max_connections / 8, 2U);
  http.patience = PatienceOf(config);
  ApiFront* self = front.get();
  PULGA_ASSIGN_OR_RETURN(front->server_,
                         HttpServer::Create(loop, std::move(http), [self](HttpExchange& exchange) {
                           return self->Handle(exchange);
                         }));
  for (const std::string& address : front->bound()) LogInfo("listening on " + address);
  return std::unique_ptr<Front>(std::move(front));
}

void ApiFront::StopAccepting() {
  stopping_ = true;
  server_->StopAccepting();
}

void ApiFront::Reload(const DaemonConfig& config) {
  call_access_ = config.call_access;
  server_->SetPatience(PatienceOf(config));
}

bool ApiFront::CallNeedsKey(const HttpRequest& request) const {
  return call_access_ == CallAccess::kKey && !request.from_function && IsCallPath(request.path());
}

std::optional<HttpReply> ApiFront::RefuseCall(const HttpRequest& request) const {
  const auto who = HolderOfKeyOrLogin(request, engine_);
  if (who && MayAsk(*who, Action::kCall)) return std::nullopt;
  if (who) return Refusal(request, {403, "not_permitted", RefusalText(*who, Action::kCall), {}});
  const char* text =
      "calls need the header \"Authorization: Bearer KEY\" here, with a key that has the scope "
      "invoke";
  HttpReply refusal = Refusal(request, {401, "unauthorized", text, {}});
  refusal.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"pulga\"");
  return refusal;
}

// Authorisation comes before everything else under /v1 and /system, so that nobody learns anything
// of routes that they may not ask.
std::optional<HttpReply> ApiFront::RefuseStranger(const HttpRequest& request) const {
  const std::string_view path = request.path();
  // Functions call functions; for them there is nothing else here, not even a refusal to log in.
  if (request.from_function && !IsCallPath(path)) {
    return Refusal(request, {404, "not_found", "404 page not found", {}});
  }
  if (CallNeedsKey(request)) return RefuseCall(request);
  if (path == kSignInPath) return std::nullopt;
  const bool management = IsManagementPath(path);
  if (!management && !IsGatewayPath(path)) return std::nullopt;
  const auto who =
      management ? HolderOfKey(request, engine_) : HolderOfKeyOrLogin(request, engine_);
  if (!who) {
    if (!management) return InvalidCredentialsReply();
    const char* text =
        "this needs the header \"Authorization: Bearer KEY\"; the admin key is in "
        "admin.key in the data directory (pulga: PULGA_KEY, --key KEY or --data DIR)";
    return Refusal(request, {401, "unauthorized", text, {}});
  }
  const Action action = ActionOf(request.method, path);
  if (MayAsk(*who, action)) return std::nullopt;
  if (!management) return TextErrorReply(403, RefusalText(*who, action));
  return Refusal(request, {403, "not_permitted", RefusalText(*who, action), {}});
}

// What a function asks of another by that one's name is a call of it, whatever the path.
std::unique_ptr<HttpHandler> ApiFront::CallByHost(HttpExchange& exchange,
                                                  const ServiceName& service) const {
  const HttpRequest& request = exchange.request();
  const std::string path =
      "/function/" + service.function + "." + service.name_space + std::string(request.path());
  RouteMatch match = router_.Match(request.method, path);
  if (match.kind == RouteMatch::Kind::kFound) return match.route->handler(exchange, match.params);
  const ApiError error{405, "method_not_allowed", "only " + match.allow + " here", {}};
  HttpReply refusal = RefusedCallReply(error, PreferredForm(request), CallIdOf(request));
  refusal.headers.emplace_back("Allow", match.allow);
  return Immediately(exchange, std::move(refusal));
}

std::unique_ptr<HttpHandler> ApiFront::Handle(HttpExchange& exchange) const {
  const HttpRequest& request = exchange.request();
  if (const auto service = FunctionAsHost(request)) return CallByHost(exchange, *service);
  const std::string_view path = request.path();
  if (auto refusal = RefuseStranger(request)) return Immediately(exchange, std::move(*refusal));
  // A function never gets the key that its caller showed us.
  if (CallNeedsKey(request)) exchange.DropHeader("Authorization");
  const std::string_view method = IsUploadPath(path) ? TusMethod(request) : request.method;
  RouteMatch match = router_.Match(method, path);
  if (match.kind != RouteMatch::Kind::kFound) {
    return Immediately(exchange, NoRouteReply(request, std::move(match)));
  }
  if (IsManagementPath(path)) {
    if (auto problem = QueryProblem(*match.route, request.query())) {
      return Immediately(exchange,
                         Refusal(request, {400, "invalid_query", std::move(*problem), {}}));
    }
  }
  if (stopping_ && path == "/healthz") {
    return Immediately(exchange, Refusal(request, {503, "shutting_down", "shutting down", {}}));
  }
  return match.route->handler(exchange, match.params);
}

}  // namespace pulga
