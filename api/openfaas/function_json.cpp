#include "api/openfaas/function_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/json_codec.h"
#include "base/units.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;
using Texts = std::map<std::string, std::string>;

bool IsReady(const InstanceStatus& instance) {
  return instance.step == "warm" || instance.step == "busy" || instance.step == "frozen" ||
         instance.step == "reclaimed";
}

Json ObjectOf(const Texts& texts) {
  Json object = Json::object();
  for (const auto& [name, value] : texts) object[name] = value;
  return object;
}

// As a client that deployed it sent it.
void AddSaid(const FunctionSpec& spec, const OpenFaasSpec& said, Json* out) {
  Texts env = spec.env;
  if (!said.env_process.empty()) {
    (*out)["envProcess"] = said.env_process;
    const auto process = env.find("fprocess");
    if (process != env.end() && process->second == said.env_process) env.erase(process);
  }
  if (!env.empty()) (*out)["envVars"] = ObjectOf(env);
  if (!said.constraints.empty()) (*out)["constraints"] = said.constraints;
  if (!said.limits.empty()) (*out)["limits"] = ObjectOf(said.limits);
  if (!said.requests.empty()) (*out)["requests"] = ObjectOf(said.requests);
  if (said.read_only_root) (*out)["readOnlyRootFilesystem"] = true;
}

// Of a function deployed in our own words.
void AddOwn(const FunctionSpec& spec, Json* out) {
  if (!spec.env.empty()) (*out)["envVars"] = ObjectOf(spec.env);
  Json limits = {{"memory", FormatBytes(spec.sandbox.memory_bytes)}};
  if (spec.sandbox.cpu_millis != 0) limits["cpu"] = FormatCpuMillis(spec.sandbox.cpu_millis);
  (*out)["limits"] = limits;
  (*out)["readOnlyRootFilesystem"] = true;
}

Json StatusOf(const FunctionStatus& status, NameLabel label) {
  const Version& version = *status.active;
  const FunctionSpec& spec = version.spec;
  Json out = {{"name", status.key.name},
              {"namespace", status.key.name_space},
              {"image", version.image_ref}};
  if (!spec.secrets.empty()) out["secrets"] = spec.secrets;
  if (spec.openfaas) {
    AddSaid(spec, *spec.openfaas, &out);
  } else {
    AddOwn(spec, &out);
  }
  Texts labels = spec.labels;
  if (label == NameLabel::kAdded) labels.try_emplace("faas_function", status.key.name);
  out["labels"] = ObjectOf(labels);
  out["annotations"] = ObjectOf(spec.annotations);
  const Replicas replicas = ReplicasOf(status);
  out["replicas"] = replicas.wanted;
  out["availableReplicas"] = replicas.available;
  out["invocationCount"] = status.activity.invocations;
  out["createdAt"] = Rfc3339(version.created_unix_ms);
  return out;
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

Replicas ReplicasOf(const FunctionStatus& status) {
  const auto& instances = status.activity.instances;
  const auto ready =
      static_cast<uint32_t>(std::count_if(instances.begin(), instances.end(), IsReady));
  const bool works = status.activity.trouble.empty();
  const auto& scaled = status.activity.scaled;
  const auto& labels = status.active->spec.labels;
  const auto zero = labels.find("com.openfaas.scale.zero");
  const bool rests = zero != labels.end() && zero->second == "true" && ready == 0 && works;
  if (scaled == 0U || (rests && scaled.value_or(status.active->spec.scale.min) == 0)) {
    return {ready, ready};
  }
  Replicas replicas;
  replicas.wanted = std::max({scaled.value_or(status.active->spec.scale.min), ready, 1U});
  replicas.available = std::max(ready, works ? 1U : 0U);
  return replicas;
}

std::string OpenFaasStatusJson(const FunctionStatus& status, NameLabel label,
                               const std::optional<FunctionUsage>& usage) {
  Json out = StatusOf(status, label);
  if (usage) {
    Json& used = out["usage"] = Json::object();
    if (usage->cpu_millis) used["cpu"] = *usage->cpu_millis;
    used["totalMemoryBytes"] = usage->memory_bytes;
  }
  return Dump(out);
}

std::string OpenFaasListJson(const std::vector<FunctionStatus>& functions, NameLabel label) {
  Json list = Json::array();
  for (const FunctionStatus& status : functions) list.push_back(StatusOf(status, label));
  return Dump(list);
}

}  // namespace pulga
