// The routes of the OpenFaaS dialect below /system, each group in its own file. They ignore query
// parameters they do not know, as the gateway does. `engine` must outlive the router.
#pragma once

#include <memory>
#include <string>

#include "api/openfaas/gateway_metrics.h"
#include "api/router.h"
#include "base/event_loop.h"
#include "runtime/engine.h"

namespace pulga {

inline constexpr const char* kFaasdProvider = "faasd";

struct OpenFaasOptions {
  std::string provider_name;  // setting provider-name
  Duration timeout{0};        // setting openfaas-timeout
};

// What the routes have besides the engine.
struct OpenFaasContext {
  EventLoop& loop;
  std::shared_ptr<GatewayMetrics> metrics;
  OpenFaasOptions options;
};

void AddOpenFaasFunctionRoutes(Router& router, Engine& engine, const OpenFaasOptions& options);
void AddOpenFaasNamespaceRoutes(Router& router, Engine& engine);
// GET /metrics, behind the login or the admin key.
void AddMetricsRoute(Router& router, Engine& engine, std::shared_ptr<GatewayMetrics> metrics);
void AddOpenFaasSecretRoutes(Router& router, Engine& engine);
void AddOpenFaasLogRoutes(Router& router, Engine& engine);
// All others; those below /system are counted and timed.
void AddOpenFaasRoutes(Router& router, Engine& engine, const OpenFaasContext& context);

}  // namespace pulga
