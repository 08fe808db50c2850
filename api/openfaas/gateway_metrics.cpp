#include "api/openfaas/gateway_metrics.h"

#include <cstdio>
#include <set>

#include "api/openfaas/function_json.h"

namespace pulga {
namespace {

// Between two scrapes functions may come and go.
constexpr size_t kMostFunctions = 4096;
constexpr size_t kMostCodes = 32;

std::string NameOf(const FunctionKey& key) { return key.name + "." + key.name_space; }

std::string Number(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void Describe(const char* name, const char* type, const char* help, std::string* out) {
  *out += std::string("# HELP ") + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

void Add(const std::string& name, const std::string& labels, const std::string& value,
         std::string* out) {
  *out += name + (labels.empty() ? "" : "{" + labels + "}") + " " + value + "\n";
}

std::string Labels(const FunctionKey& key) { return "function_name=\"" + NameOf(key) + "\""; }

std::string Labels(const FunctionKey& key, int code) {
  return "code=\"" + (code == 0 ? "other" : std::to_string(code)) + "\"," + Labels(key);
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
  ByCode& code = function->codes[room ? status : 0];
  const double seconds = std::chrono::duration<double>(time).count();
  ++code.count;
  code.seconds += seconds;
  for (size_t i = 0; i < kBuckets.size(); ++i) code.within[i] += seconds <= kBuckets[i];
}

std::string GatewayMetrics::Text(const std::vector<FunctionStatus>& functions,
                                 const SystemReport& system) {
  std::set<FunctionKey> there;
  for (const FunctionStatus& status : functions) there.insert(status.key);
  std::erase_if(functions_, [&](const auto& entry) { return !there.contains(entry.first); });
  std::string out;
  Describe("gateway_function_invocation_total", "counter", "Function metrics", &out);
  for (const auto& [key, function] : functions_) {
    for (const auto& [code, calls] : function.codes) {
      Add("gateway_function_invocation_total", Labels(key, code), std::to_string(calls.count),
          &out);
    }
  }
  Describe("gateway_function_invocation_started", "counter", "Invocations that began", &out);
  for (const auto& [key, function] : functions_) {
    Add("gateway_function_invocation_started", Labels(key), std::to_string(function.started), &out);
  }
  const std::string histogram = "gateway_functions_seconds";
  Describe(histogram.c_str(), "histogram", "Function time taken", &out);
  for (const auto& [key, function] : functions_) {
    for (const auto& [code, calls] : function.codes) {
      const std::string labels = Labels(key, code);
      for (size_t i = 0; i < kBuckets.size(); ++i) {
        Add(histogram + "_bucket", labels + ",le=\"" + Number(kBuckets[i]) + "\"",
            std::to_string(calls.within[i]), &out);
      }
      Add(histogram + "_bucket", labels + ",le=\"+Inf\"", std::to_string(calls.count), &out);
      Add(histogram + "_sum", labels, Number(calls.seconds), &out);
      Add(histogram + "_count", labels, std::to_string(calls.count), &out);
    }
  }
  Describe("gateway_service_count", "gauge", "Replicas of a function", &out);
  for (const FunctionStatus& status : functions) {
    Add("gateway_service_count", Labels(status.key), std::to_string(ReplicasOf(status).wanted),
        &out);
  }
  Describe("pulga_memory_budget_bytes", "gauge", "What all instances may use together", &out);
  Add("pulga_memory_budget_bytes", "", std::to_string(system.memory_budget_bytes), &out);
  Describe("pulga_memory_used_bytes", "gauge", "What they are counted with", &out);
  Add("pulga_memory_used_bytes", "", std::to_string(system.memory_used_bytes), &out);
  Describe("pulga_instances", "gauge", "Instances there are, parked ones too", &out);
  Add("pulga_instances", "", std::to_string(system.instances), &out);
  return out;
}

}  // namespace pulga
