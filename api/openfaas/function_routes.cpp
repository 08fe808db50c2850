#include <memory>
#include <set>
#include <utility>

#include "api/openfaas/deployment.h"
#include "api/openfaas/function_json.h"
#include "api/openfaas/replies.h"
#include "api/openfaas/routes.h"
#include "api/openfaas/usage_book.h"
#include "base/log.h"
#include "base/text.h"
#include "images/image_ref.h"
#include "runtime/call_name.h"

namespace pulga {
namespace {

// How functions are shown.
struct StatusView {
  NameLabel label = NameLabel::kNone;
  std::shared_ptr<UsageBook> book;
};

constexpr int kDeployed = 200;  // of 201 faas-cli thinks that it failed
constexpr int kAccepted = 202;

HttpReply NoSuchFunction(const std::string& name) {
  return TextErrorReply(404, "service " + Printable(name, 80) + " not found");
}

HttpReply NoSuchNamespace() { return TextErrorReply(400, "namespace not valid"); }

DeploymentRoom RoomOf(const SystemReport& board, Duration timeout) {
  DeploymentRoom room;
  room.timeout = timeout;
  room.memory_budget_bytes = board.memory_budget_bytes;
  for (const Feature& feature : board.features) {
    const bool there = feature.name == "network.egress" && feature.state == FeatureState::kPresent;
    if (there) room.network = NetworkMode::kEgress;  // functions of OpenFaaS may talk to anybody
  }
  return room;
}

// A PUT that fails for want of the image says so as the original does.
HttpReply FailedDeploy(const Engine& engine, const Deployment& wanted, bool creating,
                       const Error& error) {
  const bool no_image = !engine.Image(wanted.spec.image).ok();
  if (!no_image || error.code == Code::kInvalidArgument) return TextErrorReply(error, "function");
  const auto ref = NormalizeImageRef(wanted.spec.image);
  return TextErrorReply(creating ? 400 : 500, "unable to pull image " +
                                                  (ref.ok() ? *ref : wanted.spec.image) +
                                                  ": cannot pull: " + error.message);
}

// Those that are being created, whose names are taken already.
using Newcomers = std::shared_ptr<std::set<FunctionKey>>;

void Deploy(Engine& engine, bool creating, Deployment wanted, const ReplyDone& done) {
  const FunctionKey key = wanted.key;
  FunctionSpec spec = wanted.spec;
  engine.PutFunction(key, std::move(spec),
                     [&engine, creating, wanted = std::move(wanted), done](Result<PutReport> put) {
                       if (!put.ok())
                         return done(FailedDeploy(engine, wanted, creating, put.error()));
                       for (const std::string& warning : put->warnings) {
                         LogWarning("deploy " + wanted.key.name + ": " + Printable(warning, 300));
                       }
                       done(EmptyReply(kDeployed));
                     });
}

std::unique_ptr<HttpHandler> HandleDeploy(HttpExchange& exchange, Engine& engine, Duration timeout,
                                          const Newcomers& newcomers) {
  const HttpRequest& request = exchange.request();
  const bool creating = request.method == "POST";
  const auto deploy = [&engine, creating, timeout, newcomers, query = std::string(request.query())](
                          const JsonObject& body, const ReplyDone& done) {
    auto wanted = ParseDeployment(body, query, RoomOf(engine.System(), timeout));
    if (!wanted.ok()) return done(TextErrorReply(400, wanted.error().message));
    const FunctionKey& key = wanted->key;
    if (!engine.namespaces().Find(key.name_space).ok()) return done(NoSuchNamespace());
    const bool there = engine.Function(key).ok();
    if (creating && (there || newcomers->contains(key)))
      return done(TextErrorReply(400, "service " + key.name + " already exists"));
    if (!creating && !there) return done(NoSuchFunction(key.name));
    if (!creating) return Deploy(engine, creating, std::move(*wanted), done);
    newcomers->insert(key);
    const auto arrived = [newcomers, key, done](HttpReply reply) {
      newcomers->erase(key);
      done(std::move(reply));
    };
    Deploy(engine, creating, std::move(*wanted), arrived);
  };
  return WithJsonBody(exchange, deploy);
}

std::unique_ptr<HttpHandler> HandleDelete(HttpExchange& exchange, Engine& engine) {
  const std::string query(exchange.request().query());
  return WithJsonBody(exchange, [&engine, query](const JsonObject& body, const ReplyDone& done) {
    FunctionKey key;
    key.name = body.Text("functionName");
    key.name_space = NamespaceOf(body, query);
    if (!body.status().ok()) return done(TextErrorReply(400, body.status().error().message));
    if (key.name.empty()) return done(TextErrorReply(400, "functionName: missing"));
    if (!engine.namespaces().Find(key.name_space).ok()) return done(NoSuchNamespace());
    engine.DeleteFunction(key, [key, done](const Status& deleted) {
      if (deleted.ok()) return done(EmptyReply(200));
      done(deleted.error().code == Code::kNotFound ? NoSuchFunction(key.name)
                                                   : TextErrorReply(deleted.error(), "function"));
    });
  });
}

std::unique_ptr<HttpHandler> HandleList(HttpExchange& exchange, Engine& engine, NameLabel label) {
  const std::string name_space = NamespaceOf(exchange.request().query());
  if (!engine.namespaces().Find(name_space).ok()) return Immediately(exchange, NoSuchNamespace());
  std::vector<FunctionStatus> functions = engine.Functions();
  std::erase_if(functions, [&](const auto& f) { return f.key.name_space != name_space; });
  return Immediately(exchange, JsonReply(200, OpenFaasListJson(functions, label)));
}

FunctionUsage UsageOf(const FunctionStatus& status, UsageBook& book) {
  FunctionUsage usage;
  for (const InstanceStatus& instance : status.activity.instances) {
    usage.memory_bytes += instance.memory.total;
  }
  usage.cpu_millis = book.CpuMillis(status);
  return usage;
}

std::unique_ptr<HttpHandler> HandleStatus(HttpExchange& exchange, Engine& engine,
                                          const std::string& name, const StatusView& view) {
  const std::string_view query = exchange.request().query();
  const FunctionKey key = ParseCallName(name, NamespaceOf(query));
  if (!engine.namespaces().Find(key.name_space).ok()) {
    return Immediately(exchange, NoSuchNamespace());
  }
  const auto status = engine.Function(key);
  if (!status.ok()) return Immediately(exchange, NoSuchFunction(key.name));
  const std::string asked = QueryValue(query, "usage").value_or("");
  std::optional<FunctionUsage> usage;
  if (asked == "1" || asked == "true") usage = UsageOf(*status, *view.book);
  return Immediately(exchange, JsonReply(200, OpenFaasStatusJson(*status, view.label, usage)));
}

std::unique_ptr<HttpHandler> HandleScale(HttpExchange& exchange, Engine& engine,
                                         const std::string& path_name) {
  const auto scale = [&engine, path_name, query = std::string(exchange.request().query())](
                         const JsonObject& body, const ReplyDone& done) {
    const std::string named = body.Text("serviceName");
    const auto replicas = body.Number("replicas");
    const FunctionKey key =
        ParseCallName(named.empty() ? path_name : named, NamespaceOf(body, query));
    if (!body.status().ok()) return done(TextErrorReply(400, body.status().error().message));
    if (!replicas) return done(TextErrorReply(400, "replicas: missing"));
    if (!engine.namespaces().Find(key.name_space).ok()) return done(NoSuchNamespace());
    const auto status = engine.Function(key);
    if (!status.ok()) return done(NoSuchFunction(key.name));
    // The original, too, takes what is more than the maximum for the maximum.
    const uint64_t most = status->active->spec.scale.max;
    const Status scaled = engine.Scale(key, static_cast<uint32_t>(std::min(*replicas, most)));
    done(scaled.ok() ? EmptyReply(kAccepted) : TextErrorReply(scaled.error(), "function"));
  };
  return WithJsonBody(exchange, scale);
}

}  // namespace

void AddOpenFaasFunctionRoutes(Router& router, Engine& engine, const OpenFaasOptions& options) {
  const bool as_faasd = options.provider_name == kFaasdProvider;
  const StatusView view = {as_faasd ? NameLabel::kNone : NameLabel::kAdded,
                           std::make_shared<UsageBook>()};
  const auto newcomers = std::make_shared<std::set<FunctionKey>>();
  for (const char* method : {"POST", "PUT"}) {
    router.Add(
        method, "/system/functions",
        [&engine, timeout = options.timeout, newcomers](HttpExchange& exchange, const PathParams&) {
          return HandleDeploy(exchange, engine, timeout, newcomers);
        });
  }
  router.Add("DELETE", "/system/functions", [&engine](HttpExchange& exchange, const PathParams&) {
    return HandleDelete(exchange, engine);
  });
  router.Add("GET", "/system/functions",
             [&engine, view](HttpExchange& exchange, const PathParams&) {
               return HandleList(exchange, engine, view.label);
             });
  router.Add("GET", "/system/function/{name}",
             [&engine, view](HttpExchange& exchange, const PathParams& params) {
               return HandleStatus(exchange, engine, params.name, view);
             });
  router.Add("POST", "/system/scale-function/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return HandleScale(exchange, engine, params.name);
             });
}

}  // namespace pulga
