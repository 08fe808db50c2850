// The native routes, each group in its own file. They are added in the order in which a reader of
// api/openapi.yaml meets them. `engine` must outlive the router.
#pragma once

#include <memory>
#include <string>

#include "api/openfaas/gateway_metrics.h"
#include "api/router.h"
#include "base/event_loop.h"
#include "runtime/engine.h"

namespace pulga {

void AddImageRoutes(Router& router, Engine& engine);
// Image archives in parts, by the tus protocol.
void AddUploadRoutes(Router& router, Engine& engine);
void AddFunctionRoutes(Router& router, Engine& engine);
// Before AddImageRoutes: an image may be called "x/export", its other routes end with {ref...}.
void AddUpkeepRoutes(Router& router, Engine& engine);
void AddVolumeRoutes(Router& router, Engine& engine);
void AddSecretRoutes(Router& router, Engine& engine);
// Users and API keys.
void AddAccountRoutes(Router& router, Engine& engine);
// What all calls work with; outlives them.
struct CallContext {
  Engine& engine;
  EventLoop& loop;
  std::shared_ptr<GatewayMetrics> metrics;
  std::string served_by;  // X-Served-By where the function says nothing of it
};
void AddCallRoutes(Router& router, CallContext context);
// Asynchronous calls: /async-function to the callers of functions, /v1/tasks to the management.
void AddAsyncRoutes(Router& router, Engine& engine);
void AddTaskRoutes(Router& router, Engine& engine);
void AddSystemRoutes(Router& router, Engine& engine);

// POST /v1/images: streams the body to the engine's spool with backpressure.
std::unique_ptr<HttpHandler> MakeUploadHandler(HttpExchange& exchange, Engine& engine);
// POST /v1/images/pull: answers when done, or with the progress, one JSON line each.
std::unique_ptr<HttpHandler> MakePullHandler(HttpExchange& exchange, Engine& engine);
// GET /v1/functions/{name}/logs?tail=&follow=1: JSON lines, chunked.
std::unique_ptr<HttpHandler> MakeLogHandler(HttpExchange& exchange, Engine& engine,
                                            const FunctionKey& key);
// What AddCallRoutes adds: any method /function/{name}[.{ns}][/rest].
std::unique_ptr<HttpHandler> MakeCallHandler(HttpExchange& exchange, const CallContext& context,
                                             const PathParams& params);

}  // namespace pulga
