// What a server is asked before it gets calls: the path that OpenFaaS' annotations
// com.openfaas.ready.http.* name, from when and how often; without one the watchdogs' own. Pure.
// Source: docs.openfaas.com, "Workloads: custom HTTP health checks".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace pulga {

struct ReadyProbe {
  enum class Rule : uint8_t {
    kSuccess,    // ready says a 2xx status, and nothing else
    kUnlessBusy  // 503 says not yet; any other answer, or none, is of who does not know the path
  };
  std::string path;                                  // begins with '/', fits a request line
  Duration initial_delay{0};                         // after it listens
  Duration period = std::chrono::milliseconds(100);  // as OpenFaaS' gateway asks
  Rule rule = Rule::kSuccess;
  Duration believed = Duration::max();  // from when 503 is not heeded any more; kUnlessBusy
};

// None where no path is annotated. kInvalidArgument names the annotation: whoever deploys hears it.
Result<std::optional<ReadyProbe>> ReadyProbeOf(
    const std::map<std::string, std::string>& annotations);

// Of a function of OpenFaaS that names no path: /_/health. A plain server that says 503 to whatever
// it does not know has still the half of its start's time left.
ReadyProbe HealthProbe(Duration start_timeout);

}  // namespace pulga
