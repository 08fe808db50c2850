#include "api/openfaas/deployment.h"

#include <algorithm>
#include <cctype>
#include <chrono>

#include "api/openfaas/replies.h"
#include "base/text.h"
#include "base/units.h"
#include "runtime/openfaas_readiness.h"
#include "sandbox/network_rule.h"

namespace pulga {
namespace {

constexpr uint16_t kWatchdogPort = 8080;
// Of a replacement, too, which faas-cli waits 60 s for.
constexpr Duration kStartTimeout = std::chrono::seconds(40);
constexpr uint64_t kUsualMemory = 128ULL << 20;
constexpr uint64_t kLeastMemory = 1ULL << 20;
constexpr uint32_t kLeastCpuMillis = 10;
constexpr const char* kAllowAnnotation = "pulga.network.allow";
constexpr uint32_t kPids = 1024;  // the classic watchdog forks for each request

Status ApplyLimits(const std::map<std::string, std::string>& limits, const DeploymentRoom& room,
                   SandboxLimits& box) {
  const uint64_t most = room.memory_budget_bytes == 0 ? UINT64_MAX : room.memory_budget_bytes;
  box.memory_bytes = std::min(kUsualMemory, most);
  // Clients of an older kind send what they do not say as "".
  const auto said = [&limits](const char* name) {
    const auto it = limits.find(name);
    return it != limits.end() && !it->second.empty() ? it : limits.end();
  };
  if (const auto memory = said("memory"); memory != limits.end()) {
    const auto bytes = ParseMemoryLimit(memory->second);
    if (!bytes.ok()) return Prefix("limits.memory", bytes.error());
    box.memory_bytes = std::clamp(*bytes, kLeastMemory, std::max(most, kLeastMemory));
  }
  box.tmp_bytes = std::max(box.memory_bytes, box.tmp_bytes);
  box.pids = kPids;
  box.cpu_millis = 0;
  if (const auto cpu = said("cpu"); cpu != limits.end()) {
    const auto millis = ParseCpuMillis(cpu->second);
    if (!millis.ok()) return Prefix("limits.cpu", millis.error());
    box.cpu_millis = *millis == 0 ? 0 : std::max(*millis, kLeastCpuMillis);
  }
  return OkStatus();
}

// "pulga.network.allow: 192.168.1.5:1883,tcp:10.0.0.0/8": rules of network.allow (docs/network.md).
Status ApplyNetwork(const std::map<std::string, std::string>& annotations, NetworkSpec& network) {
  const auto it = annotations.find(kAllowAnnotation);
  if (it == annotations.end()) return OkStatus();
  if (network.mode != NetworkMode::kEgress) {
    return Error{Code::kInvalidArgument, 0,
                 std::string(kAllowAnnotation) + ": functions have no outbound network here"};
  }
  for (const std::string_view word : Split(it->second, ',')) {
    auto rule = ParseNetworkRule(Trim(word));
    if (!rule.ok()) return Prefix(kAllowAnnotation, rule.error());
    network.allow.push_back(std::move(*rule));
  }
  return OkStatus();
}

OpenFaasSpec WordsOf(const JsonObject& body) {
  OpenFaasSpec said;
  said.env_process = body.Text("envProcess");
  said.limits = body.TextMap("limits");
  said.requests = body.TextMap("requests");
  said.constraints = body.Texts("constraints");
  said.read_only_root = body.Flag("readOnlyRootFilesystem");
  return said;
}

}  // namespace

Result<uint64_t> ParseMemoryLimit(const std::string& text) {
  std::string quantity = text;
  const char last = quantity.empty() ? '\0' : quantity.back();
  if (last == 'm' || last == 'g') {
    quantity.back() = static_cast<char>(std::toupper(static_cast<unsigned char>(last)));
    quantity += 'i';
  }
  return ParseBytes(quantity);
}

Result<Deployment> ParseDeployment(const JsonObject& body, std::string_view query,
                                   const DeploymentRoom& room) {
  Deployment out;
  out.key.name = body.Text("service");
  out.key.name_space = NamespaceOf(body, query);
  FunctionSpec& spec = out.spec;
  spec.image = body.Text("image");
  spec.mode = ModeChoice::kHttp;
  spec.port = kWatchdogPort;
  spec.env = body.TextMap("envVars");
  spec.labels = body.TextMap("labels");
  spec.annotations = body.TextMap("annotations");
  spec.allow_unenforced = true;
  spec.access.network.mode = room.network;
  spec.limits.timeout = room.timeout;
  spec.limits.start_timeout = kStartTimeout;
  spec.secrets = body.Texts("secrets");
  spec.openfaas = WordsOf(body);
  PULGA_RETURN_IF_ERROR(body.status());
  if (out.key.name.empty()) return Error{Code::kInvalidArgument, 0, "service: missing"};
  PULGA_RETURN_IF_ERROR(ValidateFunctionName(out.key.name));
  if (!spec.openfaas->env_process.empty()) {
    spec.env.try_emplace("fprocess", spec.openfaas->env_process);
  }
  PULGA_RETURN_IF_ERROR(ApplyLimits(spec.openfaas->limits, room, spec.sandbox));
  PULGA_RETURN_IF_ERROR(ApplyNetwork(spec.annotations, spec.access.network));
  PULGA_ASSIGN_OR_RETURN(const auto probe, ReadyProbeOf(spec.annotations));
  if (probe) spec.limits.start_timeout = kStartTimeout + probe->initial_delay;
  PULGA_RETURN_IF_ERROR(Validate(spec));
  return out;
}

}  // namespace pulga
