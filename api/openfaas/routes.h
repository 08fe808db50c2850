// The routes of the OpenFaaS dialect below /system, each group in its own file. They ignore query
// parameters they do not know, as the gateway does. `engine` must outlive the router.
#pragma once

#include <memory>
#include <string>

#include "api/openfaas/gateway_metrics.h"
#include "api/router.h"
#include "runtime/engine.h"

namespace pulga {

struct OpenFaasOptions {
  std::string provider_name;  // setting provider-name
};

void AddOpenFaasFunctionRoutes(Router& router, Engine& engine);
void AddOpenFaasNamespaceRoutes(Router& router, Engine& engine);
// GET /metrics, behind the login or the admin key.
void AddMetricsRoute(Router& router, Engine& engine, std::shared_ptr<GatewayMetrics> metrics);
// All others.
void AddOpenFaasRoutes(Router& router, Engine& engine, const OpenFaasOptions& options);

}  // namespace pulga
