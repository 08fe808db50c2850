// FunctionStatus as OpenFaaS' clients read it: what was deployed, as it was said, and how the
// function does. Pure. Source: faas-provider's types; docs/openfaas.md "Replicas".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/engine.h"

namespace pulga {

struct Replicas {
  uint32_t wanted = 0;
  uint32_t available = 0;
};
// A function that runs nothing just now has one replica, which the next call finds: only one that
// was scaled to zero has none.
Replicas ReplicasOf(const FunctionStatus& status);

enum class ShowUsage : uint8_t { kNo, kYes };
std::string OpenFaasStatusJson(const FunctionStatus& status, ShowUsage usage);
std::string OpenFaasListJson(const std::vector<FunctionStatus>& functions);

}  // namespace pulga
