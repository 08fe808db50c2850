// The routes of the OpenFaaS dialect below /system, each group in its own file. They ignore query
// parameters they do not know, as the gateway does. `engine` must outlive the router.
#pragma once

#include <string>

#include "api/router.h"
#include "runtime/engine.h"

namespace pulga {

struct OpenFaasOptions {
  std::string provider_name;  // setting provider-name
};

void AddOpenFaasRoutes(Router& router, Engine& engine, const OpenFaasOptions& options);

}  // namespace pulga
