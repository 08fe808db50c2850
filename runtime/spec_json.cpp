#include "runtime/spec_json.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 8;

Error Bad(std::string_view field, std::string_view why) {
  return Error{Code::kInvalidArgument, 0, std::string(field) + ": " + std::string(why)};
}

// Watches a parse for what the parser itself would let pass: repeated keys and deep nesting.
class StrictWatch {
 public:
  bool OnEvent(int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) problem_ = "nested too deeply";
    if (event == Json::parse_event_t::object_start) open_.emplace_back();
    if (event == Json::parse_event_t::object_end && !open_.empty()) open_.pop_back();
    if (event == Json::parse_event_t::key && !open_.empty() &&
        !open_.back().insert(parsed.get<std::string>()).second && problem_.empty()) {
      problem_ = "the field \"" + Printable(parsed.get<std::string>(), 40) + "\" is given twice";
    }
    return problem_.empty();
  }
  const std::string& problem() const { return problem_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::string problem_;
};

Result<Json> ParseStrictly(std::string_view text) {
  if (text.size() > kMaxSpecBytes) {
    return Error{Code::kTooLarge, 0,
                 "the function's description is larger than " + FormatBytes(kMaxSpecBytes)};
  }
  StrictWatch watch;
  Json json = Json::parse(
      text,
      [&watch](int depth, Json::parse_event_t event, Json& parsed) {
        return watch.OnEvent(depth, event, parsed);
      },
      /*allow_exceptions=*/false);
  if (!watch.problem().empty()) return Error{Code::kInvalidArgument, 0, watch.problem()};
  if (json.is_discarded()) return Error{Code::kInvalidArgument, 0, "this is not valid JSON"};
  if (!json.is_object()) return Error{Code::kInvalidArgument, 0, "a JSON object is expected"};
  return json;
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

Result<Duration> ReadDuration(const std::string& field, const Json& json) {
  if (json.is_number_unsigned() && json.get<uint64_t>() == 0) return Duration::zero();
  if (!json.is_string()) {
    return Bad(field, "a duration like \"30s\" is expected, not " + Shown(json));
  }
  return Quantity(field, ParseDuration(json.get_ref<const std::string&>()));
}

// "auto" is zero: the pool's own rule.
Result<Duration> ReadIdle(const std::string& field, const Json& json) {
  if (json.is_string() && json.get_ref<const std::string&>() == "auto") return Duration::zero();
  PULGA_ASSIGN_OR_RETURN(const Duration idle, ReadDuration(field, json));
  if (idle == Duration::zero()) return Bad(field, "0 is no idle time; write \"auto\" or \"10s\"");
  return idle;
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

const Names<ModeChoice> kModes = {
    {"auto", ModeChoice::kAuto}, {"http", ModeChoice::kHttp}, {"exec", ModeChoice::kExec}};
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
    std::string text = NameOf(names, *out);
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

Status ReadLimits(const Json& json, FunctionSpec& spec) {
  SandboxLimits& box = spec.sandbox;
  InvocationLimits& call = spec.limits;
  return ObjectReader(json, "limits.")
      .Take("memory", ReadBytes, &box.memory_bytes)
      .Take("swap", ReadBytes, &box.swap_bytes)
      .Take("cpu", ReadCpu, &box.cpu_millis)
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
      .TakeNumber("queue", kQueueRange, &scale.queue)
      .Take("queue_wait", ReadDuration, &scale.queue_wait)
      .TakeNumber("parked", kMinRange, &scale.parked)
      .Take("idle", ReadIdle, &scale.idle)
      .Finish();
}

Status ReadNetwork(const Json& json) {
  return ObjectReader(json, "network.")
      .TakeOnly("mode", "none")
      .TakeOnly("allow", Json::array())
      .Finish();
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
  if (call.body_bytes != kByMode) json["body"] = FormatBytes(call.body_bytes);
  if (call.output_bytes != kByMode) json["output"] = FormatBytes(call.output_bytes);
  return json;
}

Json ScaleToJson(const ScaleSpec& scale) {
  Json json = {{"min", scale.min},
               {"max", scale.max},
               {"concurrency", scale.concurrency},
               {"queue", scale.queue},
               {"queue_wait", FormatDuration(scale.queue_wait)},
               {"parked", scale.parked},
               {"idle", scale.idle == Duration::zero() ? "auto" : FormatDuration(scale.idle)}};
  if (scale.concurrency == 0) json.erase("concurrency");
  return json;
}

}  // namespace

Status CheckSpecDocument(std::string_view text) { return Status(ParseStrictly(text)); }

Result<FunctionSpec> SpecFromJson(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseStrictly(text));
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
          .TakeObject("network", ReadNetwork)
          .TakeOnly("root", "read-only")
          .TakeOnly("secrets", Json::array())
          .TakeOnly("volumes", Json::array())
          .TakeOnly("devices", Json::array())
          .Take("labels", ReadTexts, &spec.labels)
          .Take("annotations", ReadTexts, &spec.annotations)
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
                     {"labels", Json::object()},
                     {"annotations", Json::object()}};
  Json out = json;
  if (spec.port == 0) out.erase("port");
  if (spec.allow_unenforced) out["allow_unenforced"] = true;
  for (const auto& [name, value] : spec.env) out["env"][name] = value;
  for (const auto& [name, value] : spec.labels) out["labels"][name] = value;
  for (const auto& [name, value] : spec.annotations) out["annotations"][name] = value;
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace pulga
