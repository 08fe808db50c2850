#include "api/openfaas/gateway_metrics.h"

#include <set>

#include "api/openfaas/function_json.h"

namespace pulga {
namespace {

// Between two scrapes functions may come and go.
constexpr size_t kMostFunctions = 4096;
constexpr size_t kMostCodes = 32;
// Of routes, methods and statuses there are fewer.
constexpr size_t kMostRequests = 512;

std::string Labels(const FunctionKey& key) {
  return "function_name=\"" + key.name + "." + key.name_space + "\"";
}

std::string Labels(const FunctionKey& key, int code) {
  return "code=\"" + (code == 0 ? "other" : std::to_string(code)) + "\"," + Labels(key);
}

void AppendBoard(const SystemReport& system, std::string* out) {
  AppendFamily({"pulga_memory_budget_bytes", "gauge", "What all instances may use together"}, out);
  AppendSample("pulga_memory_budget_bytes", "", system.memory_budget_bytes, out);
  AppendFamily({"pulga_memory_used_bytes", "gauge", "What they are counted with"}, out);
  AppendSample("pulga_memory_used_bytes", "", system.memory_used_bytes, out);
  AppendFamily({"pulga_instances", "gauge", "Instances there are, parked ones too"}, out);
  AppendSample("pulga_instances", "", system.instances, out);
}

void AppendTasks(const std::vector<FunctionStatus>& functions, const SystemReport& system,
                 std::string* out) {
  AppendFamily({"pulga_tasks_queued", "gauge", "Asynchronous calls that wait"}, out);
  for (const FunctionStatus& status : functions) {
    AppendSample("pulga_tasks_queued", Labels(status.key), status.tasks.queued, out);
  }
  AppendFamily({"pulga_tasks_running", "gauge", "Asynchronous calls under way"}, out);
  for (const FunctionStatus& status : functions) {
    AppendSample("pulga_tasks_running", Labels(status.key), status.tasks.running, out);
  }
  AppendFamily({"pulga_task_callbacks", "gauge", "Callbacks owed"}, out);
  AppendSample("pulga_task_callbacks", "", system.tasks.callbacks, out);
  AppendFamily({"pulga_task_bytes", "gauge", "Of their requests and answers, on disk"}, out);
  AppendSample("pulga_task_bytes", "", system.tasks.bytes, out);
}

}  // namespace

GatewayMetrics::Function* GatewayMetrics::Find(const FunctionKey& key) {
  const auto it = functions_.find(key);
  if (it != functions_.end()) return &it->second;
  return functions_.size() < kMostFunctions ? &functions_[key] : nullptr;
}

void GatewayMetrics::NoteStarted(const FunctionKey& key) {
  if (Function* function = Find(key)) ++function->started;
}

void GatewayMetrics::NoteEnded(const FunctionKey& key, int status, Duration time) {
  Function* function = Find(key);
  if (function == nullptr) return;
  const bool room = function->codes.size() < kMostCodes || function->codes.contains(status);
  function->codes[room ? status : 0].Note(time);
}

void GatewayMetrics::NoteManaged(const ManagedRequest& request, int status, Duration time) {
  const std::string labels = "code=\"" + std::to_string(status) + "\",method=\"" +
                             std::string(request.method) + "\",path=\"" +
                             std::string(request.path) + "\"";
  if (managed_.size() < kMostRequests || managed_.contains(labels)) managed_[labels].Note(time);
}

void GatewayMetrics::AppendCalls(std::string* out) const {
  const std::string total = "gateway_function_invocation_total";
  AppendFamily({total.c_str(), "counter", "Function metrics"}, out);
  for (const auto& [key, function] : functions_) {
    for (const auto& [code, calls] : function.codes) {
      AppendSample(total, Labels(key, code), calls.count(), out);
    }
  }
  const std::string started = "gateway_function_invocation_started";
  AppendFamily({started.c_str(), "counter", "Invocations that began"}, out);
  for (const auto& [key, function] : functions_) {
    AppendSample(started, Labels(key), function.started, out);
  }
  const std::string histogram = "gateway_functions_seconds";
  AppendFamily({histogram.c_str(), "histogram", "Function time taken"}, out);
  for (const auto& [key, function] : functions_) {
    for (const auto& [code, calls] : function.codes) {
      calls.Append(histogram, Labels(key, code), out);
    }
  }
}

void GatewayMetrics::AppendManaged(std::string* out) const {
  const std::string total = "provider_http_requests_total";
  AppendFamily({total.c_str(), "counter", "Requests below /system"}, out);
  for (const auto& [labels, times] : managed_) AppendSample(total, labels, times.count(), out);
  const std::string histogram = "provider_http_request_duration_seconds";
  AppendFamily({histogram.c_str(), "histogram", "How long they took"}, out);
  for (const auto& [labels, times] : managed_) times.Append(histogram, labels, out);
}

std::string GatewayMetrics::Text(const std::vector<FunctionStatus>& functions,
                                 const SystemReport& system) {
  std::set<FunctionKey> there;
  for (const FunctionStatus& status : functions) there.insert(status.key);
  std::erase_if(functions_, [&](const auto& entry) { return !there.contains(entry.first); });
  std::string out;
  AppendCalls(&out);
  AppendFamily({"gateway_service_count", "gauge", "Replicas of a function"}, &out);
  for (const FunctionStatus& status : functions) {
    AppendSample("gateway_service_count", Labels(status.key), ReplicasOf(status).wanted, &out);
  }
  AppendManaged(&out);
  AppendTasks(functions, system, &out);
  AppendBoard(system, &out);
  return out;
}

}  // namespace pulga
