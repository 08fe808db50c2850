// What OpenFaaS' labels com.openfaas.scale.* mean in a spec of ours. A label counts where the
// spec's own field still has its default, so what was mapped once and stored is not mapped again.
// Pure. Source: docs.openfaas.com, "Auto-scaling your functions"; faas#1840.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/function_spec.h"

namespace pulga {

bool HasScaleLabels(const FunctionSpec& spec);

struct LabelledSpec {
  FunctionSpec spec;
  std::vector<std::string> warnings;  // labels without effect, and why
};
// `spec` with limits.cpu resolved. kInvalidArgument names the label:
// "labels.com.openfaas.scale.max: ...". Does not Validate().
Result<LabelledSpec> ApplyScaleLabels(FunctionSpec spec, SandboxMode mode);

}  // namespace pulga
