// What OpenFaaS' annotations com.openfaas.ready.http.* ask for: a path that must answer with a 2xx
// status before an instance gets calls, from when and how often it is asked. Pure.
// Source: docs.openfaas.com, "Workloads: custom HTTP health checks".
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace pulga {

struct ReadyProbe {
  std::string path;                                  // begins with '/', fits a request line
  Duration initial_delay{0};                         // after it listens
  Duration period = std::chrono::milliseconds(100);  // as OpenFaaS' gateway asks
};

// None where no path is annotated. kInvalidArgument names the annotation: whoever deploys hears it.
Result<std::optional<ReadyProbe>> ReadyProbeOf(
    const std::map<std::string, std::string>& annotations);

}  // namespace pulga
