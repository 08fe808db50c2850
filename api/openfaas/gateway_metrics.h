// GatewayMetrics: what OpenFaaS' gateway and provider tell Prometheus about calls and requests,
// under their names and with their buckets. Only functions that exist are counted, each with a
// bounded number of status codes. Loop thread. Source: the gateway's and faas-provider's metrics.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "api/openfaas/prometheus_text.h"
#include "base/clock.h"
#include "runtime/engine.h"

namespace pulga {

// A request below /system.
struct ManagedRequest {
  std::string_view method;  // of a route
  std::string_view path;    // of a route, without the names in it: "/system/function"
};

class GatewayMetrics {
 public:
  void NoteStarted(const FunctionKey& key);
  // `status`: what the caller got; 499 where it had left.
  void NoteEnded(const FunctionKey& key, int status, Duration time);
  void NoteManaged(const ManagedRequest& request, int status, Duration time);
  // The text for a scrape. Functions that are no more are forgotten.
  std::string Text(const std::vector<FunctionStatus>& functions, const SystemReport& system);

 private:
  struct Function {
    uint64_t started = 0;
    std::map<int, LatencyHistogram> codes;  // 0: the rest, where a function makes up too many
  };
  Function* Find(const FunctionKey& key);
  void AppendCalls(std::string* out) const;
  void AppendManaged(std::string* out) const;

  std::map<FunctionKey, Function> functions_;
  std::map<std::string, LatencyHistogram> managed_;  // by labels
};

}  // namespace pulga
