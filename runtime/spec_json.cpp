#include "runtime/spec_json.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/text.h"
#include "base/units.h"
#include "sandbox/network_rule.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

Error Bad(std::string_view field, std::string_view why) {
  return Error{Code::kInvalidArgument, 0, std::string(field) + ": " + std::string(why)};
}

// The wrong value itself, for messages.
std::string Shown(const Json& json) {
  return Printable(json.dump(-1, ' ', false, Json::error_handler_t::replace), 40);
}

Result<std::string> ReadString(const std::string& field, const Json& json) {
  if (!json.is_string()) return Bad(field, "a string is expected, not " + Shown(json));
  return json.get<std::string>();
}

Result<bool> ReadFlag(const std::string& field, const Json& json) {
  if (!json.is_boolean()) return Bad(field, "true or false is expected, not " + Shown(json));
  return json.get<bool>();
}

Result<uint64_t> ReadUint(const std::string& field, const Json& json) {
  if (json.is_number_unsigned()) return json.get<uint64_t>();
  if (json.is_number_integer()) return Bad(field, json.dump() + " is negative");
  return Bad(field, "a whole number is expected, not " + Shown(json));
}

Result<uint64_t> ReadNumber(const std::string& field, const Json& json, NumberRange range) {
  if (json.is_number_unsigned()) {
    const auto number = json.get<uint64_t>();
    PULGA_RETURN_IF_ERROR(CheckNumber(field, number, range));
    return number;
  }
  const std::string wanted =
      " between " + std::to_string(range.least) + " and " + std::to_string(range.most);
  if (json.is_number_integer()) return Bad(field, json.dump() + " is not" + wanted);
  return Bad(field, "a whole number" + wanted + " is expected, not " + Shown(json));
}

template <typename T>
Result<T> Quantity(const std::string& field, Result<T> parsed) {
  if (!parsed.ok()) return Prefix(field, parsed.error());
  return parsed;
}

Result<uint64_t> ReadBytes(const std::string& field, const Json& json) {
  if (json.is_number()) {
    auto bytes = ReadUint(field, json);
    if (bytes.ok() && *bytes > INT64_MAX) return Bad(field, json.dump() + " is too large");
    return bytes;
  }
  if (!json.is_string()) {
    return Bad(field, "a size like \"64Mi\" is expected, not " + Shown(json));
  }
  return Quantity(field, ParseBytes(json.get_ref<const std::string&>()));
}

Result<uint32_t> ReadCpu(const std::string& field, const Json& json) {
  if (!json.is_string() && !json.is_number()) {
    return Bad(field, "\"500m\" or \"2\" is expected, not " + Shown(json));
  }
  // A bare number is cores, as in Kubernetes; its shortest text says exactly what was written.
  auto cpu = ParseCpuMillis(json.is_string() ? json.get<std::string>() : json.dump());
  if (cpu.ok()) return cpu;
  return Bad(field, cpu.error().message + ": from 10m to 1024, or \"0\" for no quota");
}

constexpr Duration kBeyondAnyRange = std::chrono::hours(24 * 365 * 200);

Result<Duration> ReadDuration(const std::string& field, const Json& json) {
  if (json.is_number_unsigned() && json.get<uint64_t>() == 0) return Duration::zero();
  if (!json.is_string()) {
    return Bad(field, "a duration like \"30s\" is expected, not " + Shown(json));
  }
  const Result<Duration> parsed = ParseDuration(json.get_ref<const std::string&>());
  // The check of the field's range has better words for it.
  if (!parsed.ok() && parsed.error().code == Code::kTooLarge) return kBeyondAnyRange;
  return Quantity(field, parsed);
}

// "auto" is zero: the pool's own rule.
Result<Duration> ReadIdle(const std::string& field, const Json& json) {
  if (json.is_string() && json.get_ref<const std::string&>() == "auto") return Duration::zero();
  PULGA_ASSIGN_OR_RETURN(const Duration idle, ReadDuration(field, json));
  if (idle == Duration::zero()) return Bad(field, "0 is no idle time; write \"auto\" or \"10s\"");
  return idle;
}

Result<uint32_t> ReadCpuTarget(const std::string& field, const Json& json) {
  if (json == "auto") return kDefaultCpuTarget;
  if (json.is_string()) {
    return Bad(field,
               "percent of limits.cpu, 1 to 100, or \"auto\" are expected, not " + Shown(json));
  }
  PULGA_ASSIGN_OR_RETURN(const uint64_t percent, ReadNumber(field, json, kCpuTargetRange));
  return static_cast<uint32_t>(percent);
}

Result<Duration> ReadLatencyTarget(const std::string& field, const Json& json) {
  PULGA_ASSIGN_OR_RETURN(const Duration target, ReadDuration(field, json));
  if (target == Duration::zero()) return Bad(field, "0 is no time a call takes; leave it out");
  return target;
}

// "never" and "off" say the same.
Result<Duration> ReadFreezeAfter(const std::string& field, const Json& json) {
  if (json == "never" || json == "off") return kNeverFreeze;
  if (json.is_string() || json == 0) return ReadDuration(field, json);
  return Bad(field, "a duration like \"1s\", \"0\" for at once, or \"never\" is expected, not " +
                        Shown(json));
}

Result<std::vector<std::string>> ReadWords(const std::string& field, const Json& json) {
  if (!json.is_array()) return Bad(field, "an array of strings is expected, not " + Shown(json));
  std::vector<std::string> words;
  for (const Json& word : json) {
    if (!word.is_string()) {
      return Bad(field, "an array of strings is expected, and " + Shown(word) + " is none");
    }
    words.push_back(word.get<std::string>());
  }
  return words;
}

Result<std::map<std::string, std::string>> ReadTexts(const std::string& field, const Json& json) {
  if (!json.is_object()) {
    return Bad(field, "an object of strings is expected, not " + Shown(json));
  }
  std::map<std::string, std::string> texts;
  for (const auto& [name, value] : json.items()) {
    if (!value.is_string()) {
      return Bad(field + "." + Printable(name, 40), "a string is expected, not " + Shown(value));
    }
    texts[name] = value.get<std::string>();
  }
  return texts;
}

template <typename E>
using Names = std::vector<std::pair<const char*, E>>;

const Names<ModeChoice> kModes = {{"auto", ModeChoice::kAuto},
                                  {"http", ModeChoice::kHttp},
                                  {"exec", ModeChoice::kExec},
                                  {"frames", ModeChoice::kFrames}};
const Names<InputKind> kInputs = {{"stdin", InputKind::kStdin}, {"argument", InputKind::kArgument}};
const Names<PullPolicy> kPulls = {{"if-not-present", PullPolicy::kIfNotPresent},
                                  {"always", PullPolicy::kAlways},
                                  {"never", PullPolicy::kNever}};
const Names<InitChoice> kInits = {{"auto", InitChoice::kAuto}, {"none", InitChoice::kNone}};

template <typename E>
const char* NameOf(const Names<E>& names, E value) {
  for (const auto& [name, named] : names) {
    if (named == value) return name;
  }
  return "";
}

// Takes the known fields out of one object; the first mistake sticks.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {
    if (!object.is_object())
      status_ =
          Bad(prefix_.substr(0, prefix_.size() - 1), "an object is expected, not " + Shown(object));
  }

  template <typename T, typename Read>
  ObjectReader& Take(const char* name, Read read, T* out) {
    const Json* json = Find(name);
    if (json == nullptr) return *this;
    auto value = read(prefix_ + name, *json);
    if (value.ok()) {
      *out = std::move(value).value();
    } else {
      status_ = value.error();
    }
    return *this;
  }

  template <typename T>
  ObjectReader& TakeNumber(const char* name, NumberRange range, T* out) {
    const auto read = [range](const std::string& field, const Json& json) {
      return ReadNumber(field, json, range);
    };
    uint64_t wide = *out;
    Take(name, read, &wide);
    *out = static_cast<T>(wide);
    return *this;
  }

  template <typename E>
  ObjectReader& TakeName(const char* name, const Names<E>& names, E* out) {
    if (Find(name) == nullptr) return *this;
    std::string text;
    Take(name, ReadString, &text);
    std::string choices;
    for (const auto& [known, value] : names) {
      if (text == known) {
        *out = value;
        return *this;
      }
      choices += (choices.empty() ? "" : ", ") + std::string(known);
    }
    if (status_.ok())
      status_ = Bad(prefix_ + name, "\"" + Printable(text, 40) + "\" is not one of " + choices);
    return *this;
  }

  // A documented field of which this release has only one value, the default.
  ObjectReader& TakeOnly(const char* name, const Json& only) {
    const Json* json = Find(name);
    if (json != nullptr && *json != only) {
      status_ = Bad(prefix_ + name, "only " + only.dump() + " is available in this release");
    }
    return *this;
  }

  ObjectReader& TakeObject(const char* name, const std::function<Status(const Json&)>& read) {
    const Json* json = Find(name);
    if (json != nullptr) status_ = read(*json);
    return *this;
  }

  Status Finish() const {
    PULGA_RETURN_IF_ERROR(status_);
    for (const auto& [name, value] : object_.items()) {
      if (!known_.contains(name)) return Bad(prefix_ + Printable(name, 40), "unknown field");
    }
    return OkStatus();
  }

 private:
  const Json* Find(const char* name) {
    known_.insert(name);
    if (!status_.ok()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  const Json& object_;
  std::string prefix_;
  std::set<std::string> known_;
  Status status_;
};

// One value, or {"min","max"}: then `least` is not 0.
template <typename T, typename Read>
Status ReadRange(const std::string& field, const Json& json, Read read, std::pair<T*, T*> range) {
  const auto [least, most] = range;
  if (!json.is_object()) {
    PULGA_ASSIGN_OR_RETURN(*most, read(field, json));
    return OkStatus();
  }
  PULGA_RETURN_IF_ERROR(
      ObjectReader(json, field + ".").Take("min", read, least).Take("max", read, most).Finish());
  for (const char* end : {"min", "max"}) {
    if (json.contains(end) && !json[end].is_null()) continue;
    return Bad(field, "a range has \"min\" and \"max\"");
  }
  if (*least == 0) return Bad(field + ".min", "0 is no lower end of a range");
  if (*least == *most) *least = 0;
  return OkStatus();
}

Status ReadLimits(const Json& json, FunctionSpec& spec) {
  SandboxLimits& box = spec.sandbox;
  InvocationLimits& call = spec.limits;
  return ObjectReader(json, "limits.")
      .TakeObject("memory",
                  [&](const Json& j) {
                    return ReadRange("limits.memory", j, ReadBytes,
                                     std::pair(&spec.least_memory_bytes, &box.memory_bytes));
                  })
      .Take("swap", ReadBytes, &box.swap_bytes)
      .TakeObject("cpu",
                  [&](const Json& j) {
                    return ReadRange("limits.cpu", j, ReadCpu,
                                     std::pair(&spec.least_cpu_millis, &box.cpu_millis));
                  })
      .TakeNumber("cpu_weight", kCpuWeightRange, &box.cpu_weight)
      .TakeNumber("pids", kPidsRange, &box.pids)
      .Take("io_read_bps", ReadBytes, &box.io_read_bps)
      .Take("io_write_bps", ReadBytes, &box.io_write_bps)
      .Take("tmp", ReadBytes, &box.tmp_bytes)
      .TakeNumber("nofile", kNofileRange, &box.nofile)
      .Take("timeout", ReadDuration, &call.timeout)
      .Take("start_timeout", ReadDuration, &call.start_timeout)
      .Take("grace", ReadDuration, &call.grace)
      .Take("body", ReadBytes, &call.body_bytes)
      .Take("output", ReadBytes, &call.output_bytes)
      .Finish();
}

Status ReadScale(const Json& json, ScaleSpec& scale) {
  return ObjectReader(json, "scale.")
      .TakeNumber("min", kMinRange, &scale.min)
      .TakeNumber("max", kMaxRange, &scale.max)
      .TakeNumber("concurrency", kConcurrencyRange, &scale.concurrency)
      .TakeNumber("target", kConcurrencyRange, &scale.target)
      .TakeNumber("rps_target", kRpsTargetRange, &scale.rps_target)
      .Take("cpu_target", ReadCpuTarget, &scale.cpu_target)
      .Take("latency_target", ReadLatencyTarget, &scale.latency_target)
      .TakeNumber("latency_percentile", kPercentileRange, &scale.latency_percentile)
      .TakeNumber("queue", kQueueRange, &scale.queue)
      .Take("queue_wait", ReadDuration, &scale.queue_wait)
      .TakeNumber("weight", kWeightRange, &scale.weight)
      .TakeNumber("parked", kMinRange, &scale.parked)
      .Take("idle", ReadIdle, &scale.idle)
      .Take("freeze_after", ReadFreezeAfter, &scale.freeze_after)
      .Finish();
}

const Names<NetworkMode> kNetworkModes = {
    {"none", NetworkMode::kNone}, {"egress", NetworkMode::kEgress}, {"host", NetworkMode::kHost}};
// What is absent is the grant's choice.
const Names<LeaseKind> kLeases = {{"exclusive", LeaseKind::kExclusive},
                                  {"shared", LeaseKind::kShared}};

std::string Entry(const std::string& field, size_t index) {
  return field + "[" + std::to_string(index) + "]";
}

template <typename T>
Result<std::vector<T>> ReadEach(const std::string& field, const Json& array,
                                Result<T> (*read)(const std::string&, const Json&)) {
  std::vector<T> out;
  for (const Json& entry : array) {
    PULGA_ASSIGN_OR_RETURN(T value, read(Entry(field, out.size()), entry));
    out.push_back(std::move(value));
  }
  return out;
}

Result<std::vector<NetworkRule>> ReadRules(const std::string& field, const Json& json) {
  PULGA_ASSIGN_OR_RETURN(const std::vector<std::string> words, ReadWords(field, json));
  std::vector<NetworkRule> rules;
  for (const std::string& word : words) {
    auto rule = ParseNetworkRule(word);
    if (!rule.ok()) return Prefix(Entry(field, rules.size()), rule.error());
    rules.push_back(std::move(*rule));
  }
  return rules;
}

Status ReadNetwork(const Json& json, AccessSpec& access) {
  return ObjectReader(json, "network.")
      .TakeName("mode", kNetworkModes, &access.network.mode)
      .Take("allow", ReadRules, &access.network.allow)
      .Finish();
}

Result<VolumeMount> ReadVolume(const std::string& field, const Json& json) {
  VolumeMount volume;
  int kinds = 0;
  for (const auto& [key, kind] :
       {std::pair("name", VolumeKind::kVolume), std::pair("data_set", VolumeKind::kDataSet),
        std::pair("host", VolumeKind::kHost)}) {
    if (!json.is_object() || !json.contains(key) || json[key].is_null()) continue;
    volume.kind = kind;
    ++kinds;
  }
  volume.read_only = volume.kind == VolumeKind::kDataSet;
  PULGA_RETURN_IF_ERROR(ObjectReader(json, field + ".")
                            .Take("name", ReadString, &volume.source)
                            .Take("data_set", ReadString, &volume.source)
                            .Take("host", ReadString, &volume.source)
                            .Take("path", ReadString, &volume.path)
                            .Take("read_only", ReadFlag, &volume.read_only)
                            .Take("size", ReadBytes, &volume.size_bytes)
                            .Finish());
  if (kinds != 1) return Bad(field, "one of \"name\", \"data_set\" and \"host\" is expected");
  return volume;
}

Result<std::vector<VolumeMount>> ReadVolumes(const std::string& field, const Json& json) {
  if (!json.is_array()) return Bad(field, "an array of objects is expected, not " + Shown(json));
  return ReadEach<VolumeMount>(field, json, ReadVolume);
}

// "gpio:/dev/gpiochip0", or an object that says how it is to be leased.
Result<DeviceRequest> ReadDevice(const std::string& field, const Json& json) {
  std::string text;
  LeaseKind lease = LeaseKind::kByGrant;
  if (json.is_string()) {
    text = json.get<std::string>();
  } else if (json.is_object()) {
    PULGA_RETURN_IF_ERROR(ObjectReader(json, field + ".")
                              .Take("device", ReadString, &text)
                              .TakeName("lease", kLeases, &lease)
                              .Finish());
  } else {
    return Bad(field, "\"gpio:/dev/gpiochip0\" is expected, not " + Shown(json));
  }
  auto device = ParseDevice(text);
  if (!device.ok()) return Prefix(field, device.error());
  device->lease = lease;
  return device;
}

Result<std::vector<DeviceRequest>> ReadDevices(const std::string& field, const Json& json) {
  if (!json.is_array()) return Bad(field, "an array is expected, not " + Shown(json));
  return ReadEach<DeviceRequest>(field, json, ReadDevice);
}

Result<uint64_t> ReadCapabilities(const std::string& field, const Json& json) {
  PULGA_ASSIGN_OR_RETURN(const std::vector<std::string> names, ReadWords(field, json));
  uint64_t capabilities = 0;
  for (const std::string& name : names) {
    const auto number = CapabilityNumber(name);
    if (!number) {
      return Bad(field, "\"" + Printable(name, 40) + "\" is not one of " + KnownCapabilities());
    }
    capabilities |= 1ULL << *number;
  }
  return capabilities;
}

Status ReadOpenFaas(const Json& json, FunctionSpec& spec) {
  OpenFaasSpec& said = spec.openfaas.emplace();
  return ObjectReader(json, "openfaas.")
      .Take("env_process", ReadString, &said.env_process)
      .Take("limits", ReadTexts, &said.limits)
      .Take("requests", ReadTexts, &said.requests)
      .Take("constraints", ReadWords, &said.constraints)
      .Take("read_only_root", ReadFlag, &said.read_only_root)
      .Finish();
}

Json NetworkToJson(const NetworkSpec& network) {
  Json allow = Json::array();
  for (const NetworkRule& rule : network.allow) allow.push_back(FormatNetworkRule(rule));
  return {{"mode", NameOf(kNetworkModes, network.mode)}, {"allow", allow}};
}

Json VolumesToJson(const std::vector<VolumeMount>& volumes) {
  Json out = Json::array();
  for (const VolumeMount& volume : volumes) {
    const char* kind = volume.kind == VolumeKind::kVolume    ? "name"
                       : volume.kind == VolumeKind::kDataSet ? "data_set"
                                                             : "host";
    Json entry = {{kind, volume.source}, {"path", volume.path}, {"read_only", volume.read_only}};
    if (volume.size_bytes != 0) entry["size"] = FormatBytes(volume.size_bytes);
    out.push_back(std::move(entry));
  }
  return out;
}

Json DevicesToJson(const std::vector<DeviceRequest>& devices) {
  Json out = Json::array();
  for (const DeviceRequest& device : devices) {
    if (device.lease == LeaseKind::kByGrant) {
      out.push_back(FormatDevice(device));
    } else {
      out.push_back({{"device", FormatDevice(device)}, {"lease", NameOf(kLeases, device.lease)}});
    }
  }
  return out;
}

Json LimitsToJson(const FunctionSpec& spec) {
  const SandboxLimits& box = spec.sandbox;
  const InvocationLimits& call = spec.limits;
  Json json = {{"memory", FormatBytes(box.memory_bytes)},
               {"swap", FormatBytes(box.swap_bytes)},
               {"cpu_weight", box.cpu_weight},
               {"pids", box.pids},
               {"io_read_bps", box.io_read_bps},
               {"io_write_bps", box.io_write_bps},
               {"tmp", FormatBytes(box.tmp_bytes)},
               {"nofile", box.nofile},
               {"timeout", FormatDuration(call.timeout)},
               {"start_timeout", FormatDuration(call.start_timeout)},
               {"grace", FormatDuration(call.grace)}};
  if (box.cpu_millis != kCpuNotGiven) json["cpu"] = FormatCpuMillis(box.cpu_millis);
  if (spec.least_memory_bytes != 0) {
    json["memory"] = {{"min", FormatBytes(spec.least_memory_bytes)},
                      {"max", FormatBytes(box.memory_bytes)}};
  }
  if (spec.least_cpu_millis != 0) {
    json["cpu"] = {{"min", FormatCpuMillis(spec.least_cpu_millis)},
                   {"max", FormatCpuMillis(box.cpu_millis)}};
  }
  if (call.body_bytes != kByMode) json["body"] = FormatBytes(call.body_bytes);
  if (call.output_bytes != kByMode) json["output"] = FormatBytes(call.output_bytes);
  return json;
}

Json ScaleToJson(const ScaleSpec& scale) {
  const bool freezes = scale.freeze_after != kNeverFreeze;
  Json json = {{"min", scale.min},
               {"max", scale.max},
               {"queue", scale.queue},
               {"queue_wait", FormatDuration(scale.queue_wait)},
               {"weight", scale.weight},
               {"parked", scale.parked},
               {"idle", scale.idle == Duration::zero() ? "auto" : FormatDuration(scale.idle)},
               {"freeze_after", freezes ? FormatDuration(scale.freeze_after) : "never"}};
  if (scale.concurrency != 0) json["concurrency"] = scale.concurrency;
  if (scale.target != 0) json["target"] = scale.target;
  if (scale.rps_target != 0) json["rps_target"] = scale.rps_target;
  if (scale.cpu_target != 0) json["cpu_target"] = scale.cpu_target;
  if (scale.latency_target == Duration::zero()) return json;
  json["latency_target"] = FormatDuration(scale.latency_target);
  json["latency_percentile"] = scale.latency_percentile;
  return json;
}

}  // namespace

Result<FunctionSpec> SpecFromJson(std::string_view text) {
  PULGA_RETURN_IF_ERROR(CheckSpecDocument(text));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  FunctionSpec spec;
  spec.sandbox.cpu_millis = kCpuNotGiven;
  PULGA_RETURN_IF_ERROR(
      ObjectReader(json, "")
          .Take("image", ReadString, &spec.image)
          .TakeName("pull", kPulls, &spec.pull)
          .TakeName("mode", kModes, &spec.mode)
          .Take("command", ReadWords, &spec.command)
          .Take("args", ReadWords, &spec.args)
          .Take("env", ReadTexts, &spec.env)
          .Take("user", ReadString, &spec.user)
          .TakeNumber("port", kPortRange, &spec.port)
          .TakeName("input", kInputs, &spec.input)
          .Take("content_type", ReadString, &spec.content_type)
          .TakeName("init", kInits, &spec.init)
          .TakeObject("limits", [&spec](const Json& j) { return ReadLimits(j, spec); })
          .Take("allow_unenforced", ReadFlag, &spec.allow_unenforced)
          .TakeObject("scale", [&spec](const Json& j) { return ReadScale(j, spec.scale); })
          .TakeObject("network", [&spec](const Json& j) { return ReadNetwork(j, spec.access); })
          .TakeOnly("root", "read-only")
          .Take("secrets", ReadWords, &spec.secrets)
          .Take("volumes", ReadVolumes, &spec.access.volumes)
          .Take("devices", ReadDevices, &spec.access.devices)
          .Take("capabilities", ReadCapabilities, &spec.access.capabilities)
          .Take("labels", ReadTexts, &spec.labels)
          .Take("annotations", ReadTexts, &spec.annotations)
          .TakeObject("openfaas", [&spec](const Json& j) { return ReadOpenFaas(j, spec); })
          .Finish());
  return spec;
}

std::string SpecToJson(const FunctionSpec& spec) {
  const Json json = {{"image", spec.image},
                     {"pull", NameOf(kPulls, spec.pull)},
                     {"mode", NameOf(kModes, spec.mode)},
                     {"command", spec.command},
                     {"args", spec.args},
                     {"env", Json::object()},
                     {"user", spec.user},
                     {"port", spec.port},
                     {"input", NameOf(kInputs, spec.input)},
                     {"content_type", spec.content_type},
                     {"init", NameOf(kInits, spec.init)},
                     {"limits", LimitsToJson(spec)},
                     {"scale", ScaleToJson(spec.scale)},
                     {"network", NetworkToJson(spec.access.network)},
                     {"secrets", spec.secrets},
                     {"volumes", VolumesToJson(spec.access.volumes)},
                     {"devices", DevicesToJson(spec.access.devices)},
                     {"capabilities", CapabilityNames(spec.access.capabilities)},
                     {"labels", Json::object()},
                     {"annotations", Json::object()}};
  Json out = json;
  if (spec.port == 0) out.erase("port");
  if (spec.allow_unenforced) out["allow_unenforced"] = true;
  for (const auto& [name, value] : spec.env) out["env"][name] = value;
  for (const auto& [name, value] : spec.labels) out["labels"][name] = value;
  for (const auto& [name, value] : spec.annotations) out["annotations"][name] = value;
  if (const auto& said = spec.openfaas) {
    out["openfaas"] = {{"env_process", said->env_process},
                       {"limits", Json(said->limits)},
                       {"requests", Json(said->requests)},
                       {"constraints", said->constraints},
                       {"read_only_root", said->read_only_root}};
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace pulga
