// A FunctionDeployment of OpenFaaS as a function of ours. Limits are fitted to the board, what
// counts otherwise here is kept word for word. Pure. Source: faas-provider's types;
// docs/openfaas.md "What becomes of a deployment".
#pragma once

#include <string>
#include <string_view>

#include "api/openfaas/json_object.h"
#include "base/result.h"
#include "runtime/function_spec.h"

namespace pulga {

// What deployments are fitted to.
struct DeploymentRoom {
  uint64_t memory_budget_bytes = 0;  // all instances together; 0 = unbounded
  NetworkMode network = NetworkMode::kNone;
  Duration timeout = std::chrono::seconds(60);  // of a call, at least
};

struct Deployment {
  FunctionKey key;
  FunctionSpec spec;
};

// kInvalidArgument names the field. `query`: the request's, for older clients' namespace.
Result<Deployment> ParseDeployment(const JsonObject& body, std::string_view query,
                                   const DeploymentRoom& room);

// "40Mi", "20M", "1Gi"; "40m" is Docker's spelling of 40 MiB, as OpenFaaS' samples mean it.
Result<uint64_t> ParseMemoryLimit(const std::string& text);

}  // namespace pulga
