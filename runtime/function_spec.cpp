#include "runtime/function_spec.h"

#include <chrono>
#include <set>

#include "base/text.h"
#include "base/units.h"
#include "runtime/openfaas_readiness.h"
#include "sandbox/secret_file.h"

namespace pulga {
namespace {

constexpr size_t kMaxWords = 256;  // command, args
constexpr size_t kMaxWordsBytes = 32 << 10;
constexpr size_t kMaxEnv = 256;
constexpr size_t kMaxEnvBytes = 32 << 10;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 4096;

Error Bad(std::string_view field, std::string_view why) {
  return Error{Code::kInvalidArgument, 0, std::string(field) + ": " + std::string(why)};
}

bool IsLowerAlnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool IsPrintableAscii(std::string_view text) {
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

Status CheckBytes(std::string_view field, uint64_t value, std::pair<uint64_t, uint64_t> range) {
  if (value >= range.first && value <= range.second) return OkStatus();
  return Bad(field, FormatBytes(value) + " is not between " + FormatBytes(range.first) + " and " +
                        FormatBytes(range.second));
}

Status CheckDuration(std::string_view field, Duration value, std::pair<Duration, Duration> range) {
  if (value >= range.first && value <= range.second) return OkStatus();
  constexpr Duration kCentury = std::chrono::hours(24 * 365 * 100);
  const std::string shown = value > kCentury ? "such a time" : FormatDuration(value);
  return Bad(field, shown + " is not between " + FormatDuration(range.first) + " and " +
                        FormatDuration(range.second));
}

Status CheckWords(std::string_view field, const std::vector<std::string>& words) {
  if (words.size() > kMaxWords) {
    return Bad(field,
               std::to_string(words.size()) + " words are more than " + std::to_string(kMaxWords));
  }
  size_t bytes = 0;
  for (const std::string& word : words) {
    if (word.find('\0') != std::string::npos) return Bad(field, "a word holds a NUL byte");
    bytes += word.size() + 1;
  }
  if (bytes > kMaxWordsBytes) {
    return Bad(field, "more than " + FormatBytes(kMaxWordsBytes) + " in all");
  }
  return OkStatus();
}

Status CheckEnv(const std::map<std::string, std::string>& env) {
  if (env.size() > kMaxEnv)
    return Bad("env",
               std::to_string(env.size()) + " variables are more than " + std::to_string(kMaxEnv));
  size_t bytes = 0;
  for (const auto& [name, value] : env) {
    const std::string field = "env." + Printable(name, 40);
    if (name.empty()) return Bad("env", "a variable has an empty name");
    if (name.find('=') != std::string::npos || name.find('\0') != std::string::npos) {
      return Bad(field, "a variable's name holds neither '=' nor NUL");
    }
    if (value.find('\0') != std::string::npos) return Bad(field, "the value holds a NUL byte");
    bytes += name.size() + value.size() + 2;
  }
  if (bytes > kMaxEnvBytes) return Bad("env", "more than " + FormatBytes(kMaxEnvBytes) + " in all");
  return OkStatus();
}

Status CheckUser(const std::string& user) {
  if (user.size() > 128) return Bad("user", "longer than 128 bytes");
  for (const char c : user) {
    const bool fits = IsLowerAlnum(c) || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' ||
                      c == '.' || c == ':' || c == '$';
    if (!fits) {
      return Bad("user", "\"" + Printable(user, 40) + "\" is not NAME, UID, NAME:GROUP or UID:GID");
    }
  }
  return OkStatus();
}

Status CheckContentType(const std::string& type) {
  const bool fits = !type.empty() && type.size() <= 255 && IsPrintableAscii(type) &&
                    type.find('/') != std::string::npos;
  if (fits) return OkStatus();
  return Bad("content_type", "\"" + Printable(type, 40) + "\" is no media type");
}

Status CheckSandboxLimits(const SandboxLimits& limits) {
  constexpr uint64_t kTebi = 1ULL << 40;
  PULGA_RETURN_IF_ERROR(CheckBytes("limits.memory", limits.memory_bytes, {1 << 20, kTebi}));
  PULGA_RETURN_IF_ERROR(CheckBytes("limits.swap", limits.swap_bytes, {0, kTebi}));
  if (limits.cpu_millis != 0 && limits.cpu_millis < 10) {
    return Bad("limits.cpu",
               FormatCpuMillis(limits.cpu_millis) +
                   " is less than the kernel's smallest quota, 10m (\"0\" is no quota)");
  }
  PULGA_RETURN_IF_ERROR(CheckNumber("limits.cpu_weight", limits.cpu_weight, kCpuWeightRange));
  PULGA_RETURN_IF_ERROR(CheckNumber("limits.pids", limits.pids, kPidsRange));
  PULGA_RETURN_IF_ERROR(CheckBytes("limits.tmp", limits.tmp_bytes, {64 << 10, kTebi}));
  PULGA_RETURN_IF_ERROR(CheckNumber("limits.nofile", limits.nofile, kNofileRange));
  for (const auto& [field, bps] : {std::pair("limits.io_read_bps", limits.io_read_bps),
                                   std::pair("limits.io_write_bps", limits.io_write_bps)}) {
    if (bps != 0) PULGA_RETURN_IF_ERROR(CheckBytes(field, bps, {4096, kTebi}));
  }
  return OkStatus();
}

Status CheckRanges(const FunctionSpec& spec) {
  const SandboxLimits& most = spec.sandbox;
  if (spec.least_memory_bytes != 0) {
    PULGA_RETURN_IF_ERROR(
        CheckBytes("limits.memory.min", spec.least_memory_bytes, {1 << 20, most.memory_bytes}));
  }
  if (spec.least_cpu_millis == 0) return OkStatus();
  if (spec.least_cpu_millis < 10 || spec.least_cpu_millis > most.cpu_millis) {
    return Bad("limits.cpu.min", FormatCpuMillis(spec.least_cpu_millis) +
                                     " is not between 10m and limits.cpu.max, " +
                                     FormatCpuMillis(most.cpu_millis));
  }
  return OkStatus();
}

Status CheckInvocationLimits(const InvocationLimits& limits) {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  using std::chrono::minutes;
  PULGA_RETURN_IF_ERROR(
      CheckDuration("limits.timeout", limits.timeout, {milliseconds(1), hours(24)}));
  PULGA_RETURN_IF_ERROR(
      CheckDuration("limits.start_timeout", limits.start_timeout, {milliseconds(1), hours(1)}));
  PULGA_RETURN_IF_ERROR(
      CheckDuration("limits.grace", limits.grace, {Duration::zero(), minutes(10)}));
  for (const auto& [field, bytes] : {std::pair("limits.body", limits.body_bytes),
                                     std::pair("limits.output", limits.output_bytes)}) {
    if (bytes != kByMode) PULGA_RETURN_IF_ERROR(CheckBytes(field, bytes, {0, 1ULL << 30}));
  }
  return OkStatus();
}

Status CheckScale(const ScaleSpec& scale) {
  PULGA_RETURN_IF_ERROR(CheckNumber("scale.max", scale.max, kMaxRange));
  if (scale.min > scale.max) {
    return Bad("scale.min",
               std::to_string(scale.min) + " is more than scale.max, " + std::to_string(scale.max));
  }
  if (scale.concurrency != 0) {
    PULGA_RETURN_IF_ERROR(CheckNumber("scale.concurrency", scale.concurrency, kConcurrencyRange));
  }
  if (scale.target != 0) {
    PULGA_RETURN_IF_ERROR(CheckNumber("scale.target", scale.target, kConcurrencyRange));
    if (scale.concurrency != 0 && scale.target > scale.concurrency) {
      return Bad("scale.target", std::to_string(scale.target) +
                                     " is more than scale.concurrency, " +
                                     std::to_string(scale.concurrency));
    }
  }
  if (scale.latency_target != Duration::zero()) {
    PULGA_RETURN_IF_ERROR(CheckDuration("scale.latency_target", scale.latency_target,
                                        {std::chrono::milliseconds(1), std::chrono::hours(1)}));
  }
  PULGA_RETURN_IF_ERROR(CheckNumber("scale.queue", scale.queue, kQueueRange));
  PULGA_RETURN_IF_ERROR(CheckNumber("scale.weight", scale.weight, kWeightRange));
  PULGA_RETURN_IF_ERROR(CheckNumber("scale.parked", scale.parked, {0, scale.max}));
  PULGA_RETURN_IF_ERROR(CheckDuration("scale.queue_wait", scale.queue_wait,
                                      {Duration::zero(), std::chrono::hours(1)}));
  constexpr Duration kMonth = std::chrono::hours(24 * 30);
  PULGA_RETURN_IF_ERROR(CheckDuration("scale.idle", scale.idle, {Duration::zero(), kMonth}));
  if (scale.freeze_after == kNeverFreeze) return OkStatus();
  return CheckDuration("scale.freeze_after", scale.freeze_after, {Duration::zero(), kMonth});
}

Status CheckSecrets(const std::vector<std::string>& secrets) {
  if (secrets.size() > kMaxSecretsPerVersion) {
    return Bad("secrets", "more than " + std::to_string(kMaxSecretsPerVersion));
  }
  std::set<std::string> names;
  for (const std::string& name : secrets) {
    if (!IsSecretName(name)) return Bad("secrets", Printable(name, 80) + " is no name of a secret");
    if (!names.insert(name).second) return Bad("secrets", name + " is there twice");
  }
  return OkStatus();
}

}  // namespace

Status CheckLabels(std::string_view field, const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return Bad(field, std::to_string(labels.size()) + " entries are more than " +
                          std::to_string(kMaxLabels));
  }
  for (const auto& [name, value] : labels) {
    if (name.empty() || name.size() > 253) return Bad(field, "a name is 1 to 253 bytes long");
    if (value.size() > kMaxLabelBytes) {
      return Bad(field,
                 Printable(name, 40) + ": the value is longer than " + FormatBytes(kMaxLabelBytes));
    }
  }
  return OkStatus();
}

Status CheckNumber(std::string_view field, uint64_t value, NumberRange range) {
  if (value >= range.least && value <= range.most) return OkStatus();
  return Bad(field, std::to_string(value) + " is not between " + std::to_string(range.least) +
                        " and " + std::to_string(range.most));
}

Status ValidateFunctionName(const std::string& name) {
  if (IsDnsLabel(name)) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "\"" + Printable(name, 80) +
                   "\" is no function name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with "
                   "a letter or digit"};
}

Status Validate(const FunctionSpec& spec) {
  if (spec.image.empty()) return Bad("image", "missing: name the image to run");
  if (spec.image.size() > 512) return Bad("image", "longer than 512 bytes");
  PULGA_RETURN_IF_ERROR(CheckWords("command", spec.command));
  if (!spec.command.empty() && spec.command.front().empty()) {
    return Bad("command", "the program's name is empty");
  }
  PULGA_RETURN_IF_ERROR(CheckWords("args", spec.args));
  PULGA_RETURN_IF_ERROR(CheckEnv(spec.env));
  PULGA_RETURN_IF_ERROR(CheckUser(spec.user));
  PULGA_RETURN_IF_ERROR(CheckContentType(spec.content_type));
  PULGA_RETURN_IF_ERROR(CheckSandboxLimits(spec.sandbox));
  PULGA_RETURN_IF_ERROR(CheckRanges(spec));
  PULGA_RETURN_IF_ERROR(CheckInvocationLimits(spec.limits));
  PULGA_RETURN_IF_ERROR(CheckScale(spec.scale));
  if (spec.scale.cpu_target != 0 && spec.sandbox.cpu_millis == 0) {
    return Bad("scale.cpu_target", "there is no limits.cpu that it could be a part of; set one");
  }
  PULGA_RETURN_IF_ERROR(CheckSecrets(spec.secrets));
  PULGA_RETURN_IF_ERROR(CheckAccess(spec.access));
  PULGA_RETURN_IF_ERROR(CheckLabels("labels", spec.labels));
  if (spec.openfaas) {
    PULGA_RETURN_IF_ERROR(CheckLabels("openfaas.limits", spec.openfaas->limits));
    PULGA_RETURN_IF_ERROR(CheckLabels("openfaas.requests", spec.openfaas->requests));
    PULGA_RETURN_IF_ERROR(CheckWords("openfaas.constraints", spec.openfaas->constraints));
    PULGA_RETURN_IF_ERROR(CheckWords("openfaas.env_process", {spec.openfaas->env_process}));
  }
  PULGA_RETURN_IF_ERROR(CheckLabels("annotations", spec.annotations));
  const auto probe = ReadyProbeOf(spec.annotations);
  if (!probe.ok()) return probe.error();
  if (!*probe || (*probe)->initial_delay < spec.limits.start_timeout) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "annotations.com.openfaas.ready.http.initialDelaySeconds: not less than "
               "limits.start_timeout"};
}

}  // namespace pulga
