// FunctionStatus as OpenFaaS' clients read it: what was deployed, as it was said, and how the
// function does. Pure. Source: faas-provider's types; docs/openfaas.md "Replicas".
#pragma once

#include <cstdint>
#include <optional>
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

// The label faas_function, which says the function's name, is what providers but faasd add.
enum class NameLabel : uint8_t { kNone, kAdded };
struct FunctionUsage {
  uint64_t memory_bytes = 0;
  std::optional<uint64_t> cpu_millis;
};
// `usage`: only where it was asked for.
std::string OpenFaasStatusJson(const FunctionStatus& status, NameLabel label,
                               const std::optional<FunctionUsage>& usage);
std::string OpenFaasListJson(const std::vector<FunctionStatus>& functions, NameLabel label);

}  // namespace pulga
