#include "api/cli/deploy_spec.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "runtime/spec_json.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

struct SpecFlag {
  const char* name;     // of the option
  const char* section;  // "" = the top level
  const char* field;
  const char* value_name;
  const char* help;
};

constexpr SpecFlag kFlags[] = {
    {"memory", "limits", "memory", "SIZE", "memory of one instance, e.g. 64Mi, or 64Mi..256Mi"},
    {"swap", "limits", "swap", "SIZE", "swap on top of it"},
    {"cpu", "limits", "cpu", "CPU", "of one core, e.g. 500m, or 100m..1"},
    {"cpu-weight", "limits", "cpu_weight", "N", "share when cores are busy, 1 to 10000"},
    {"pids", "limits", "pids", "N", "processes and threads"},
    {"io-read-bps", "limits", "io_read_bps", "SIZE", "bytes read per second"},
    {"io-write-bps", "limits", "io_write_bps", "SIZE", "bytes written per second"},
    {"tmp", "limits", "tmp", "SIZE", "size of /tmp"},
    {"nofile", "limits", "nofile", "N", "open files"},
    {"timeout", "limits", "timeout", "TIME", "of one call, e.g. 30s"},
    {"start-timeout", "limits", "start_timeout", "TIME", "until an http function listens"},
    {"grace", "limits", "grace", "TIME", "between SIGTERM and SIGKILL"},
    {"body", "limits", "body", "SIZE", "of a request body"},
    {"output", "limits", "output", "SIZE", "of a reply"},
    {"min", "scale", "min", "N", "instances kept running"},
    {"max", "scale", "max", "N", "instances at most"},
    {"concurrency", "scale", "concurrency", "N", "calls at once per instance"},
    {"rps-target", "scale", "rps_target", "N", "calls per second per instance (http)"},
    {"cpu-target", "scale", "cpu_target", "PERCENT", "of cpu, to use; auto is 80 (http)"},
    {"latency-target", "scale", "latency_target", "TIME", "a call is to take (http)"},
    {"latency-percentile", "scale", "latency_percentile", "N", "of 100 calls, 95"},
    {"queue", "scale", "queue", "N", "calls that may wait"},
    {"queue-wait", "scale", "queue_wait", "TIME", "how long they may wait"},
    {"weight", "scale", "weight", "N", "share of starts when memory is short, 1 to 1000"},
    {"parked", "scale", "parked", "N", "sandboxes kept ready (exec)"},
    {"idle", "scale", "idle", "TIME", "until an unused instance goes, or auto"},
    {"freeze-after", "scale", "freeze_after", "TIME", "until an unused server is frozen, or never"},
    {"pull", "", "pull", "WHEN", "ask the registry: if-not-present, always or never"},
    {"mode", "", "mode", "MODE", "auto, http, exec or frames"},
    {"port", "", "port", "N", "the port an http function listens on"},
    {"input", "", "input", "KIND", "stdin or argument (exec)"},
    {"content-type", "", "content_type", "TYPE", "of an exec function's reply"},
    {"init", "", "init", "KIND", "auto or none"},
    {"user", "", "user", "USER", "instead of the image's"},
    {"network", "network", "mode", "MODE", "none, egress or host"},
};

struct MapFlag {
  const char* name;
  const char* field;
};
constexpr MapFlag kMaps[] = {{"env", "env"}, {"label", "labels"}, {"annotation", "annotations"}};

// Numbers stay numbers, also negative ones, so that the daemon can say what is wrong with them.
Json ValueOf(const std::string& text) {
  const std::string_view digits = std::string_view(text).substr(text[0] == '-' ? 1 : 0);
  if (text.empty() || digits.size() > 15 || !ParseUint(digits)) return text;
  return Json::parse(text, nullptr, /*allow_exceptions=*/false).is_number()
             ? Json::parse(text, nullptr, /*allow_exceptions=*/false)
             : Json(text);
}

// Whole numbers in these fields, text in all others ("64" of memory is a quantity all the same).
bool IsCount(std::string_view field) {
  for (const char* name :
       {"cpu_weight", "pids", "nofile", "min", "max", "concurrency", "queue", "parked", "port",
        "rps_target", "cpu_target", "latency_percentile", "weight"}) {
    if (field == name) return true;
  }
  return false;
}

// "64Mi..256Mi", of limits that may be a range.
std::optional<Json> RangeOf(std::string_view field, const std::string& text) {
  const size_t dots = text.find("..");
  if ((field != "memory" && field != "cpu") || dots == std::string::npos) return std::nullopt;
  return Json{{"min", text.substr(0, dots)}, {"max", text.substr(dots + 2)}};
}

Status AddPair(const std::string& flag, const std::string& pair, Json* object) {
  const size_t equals = pair.find('=');
  if (equals == std::string::npos || equals == 0) {
    return Error{Code::kInvalidArgument, 0,
                 "--" + flag + " wants NAME=VALUE, not \"" + Printable(pair, 60) + "\""};
  }
  (*object)[pair.substr(0, equals)] = pair.substr(equals + 1);
  return OkStatus();
}

Error Wants(const char* flag, const char* form, const std::string& text) {
  return Error{
      Code::kInvalidArgument, 0,
      std::string("--") + flag + " wants " + form + ", not \"" + Printable(text, 80) + "\""};
}

// SOURCE:PATH and what else it is to be: "data:/data:size=64Mi", "/srv/models:/models:ro".
Result<Json> VolumeOf(const std::string& text) {
  const auto parts = Split(text, ':');
  const Error bad = Wants("volume", "NAME|data-set=NAME|/HOST/DIR:PATH[:ro][:size=SIZE]", text);
  if (parts.size() < 2 || parts[0].empty()) return bad;
  constexpr std::string_view kDataSet = "data-set=";
  Json volume;
  if (parts[0].starts_with('/')) {
    volume["host"] = parts[0];
  } else if (parts[0].starts_with(kDataSet)) {
    volume["data_set"] = parts[0].substr(kDataSet.size());
  } else {
    volume["name"] = parts[0];
  }
  volume["path"] = parts[1];
  for (size_t i = 2; i < parts.size(); ++i) {
    if (parts[i] == "ro") {
      volume["read_only"] = true;
    } else if (parts[i].starts_with("size=")) {
      volume["size"] = parts[i].substr(5);
    } else {
      return bad;
    }
  }
  return volume;
}

// "gpio:/dev/gpiochip0" or, with its lease, "/dev/i2c-1,shared".
Json DeviceOf(const std::string& text) {
  const size_t comma = text.rfind(',');
  if (comma == std::string::npos) return text;
  return {{"device", text.substr(0, comma)}, {"lease", text.substr(comma + 1)}};
}

// The lists of what is asked for beyond the walls; given at all, they replace the file's.
Status ApplyAccessFlags(const Args& args, Json* spec) {
  if (args.Has("allow")) (*spec)["network"]["allow"] = args.Values("allow");
  if (args.Has("capability")) (*spec)["capabilities"] = args.Values("capability");
  if (args.Has("device")) (*spec)["devices"] = Json::array();
  for (const std::string& text : args.Values("device")) {
    (*spec)["devices"].push_back(DeviceOf(text));
  }
  if (args.Has("secret")) (*spec)["secrets"] = args.Values("secret");
  if (args.Has("volume")) (*spec)["volumes"] = Json::array();
  for (const std::string& text : args.Values("volume")) {
    PULGA_ASSIGN_OR_RETURN(Json volume, VolumeOf(text));
    (*spec)["volumes"].push_back(std::move(volume));
  }
  return OkStatus();
}

Status ApplyFlags(const Args& args, Json* spec) {
  for (const SpecFlag& flag : kFlags) {
    const auto value = args.Value(flag.name);
    if (!value) continue;
    Json& section = *flag.section == '\0' ? *spec : (*spec)[flag.section];
    if (const auto range = RangeOf(flag.field, *value)) {
      section[flag.field] = *range;
      continue;
    }
    section[flag.field] = IsCount(flag.field) && !value->empty() ? ValueOf(*value) : Json(*value);
  }
  for (const MapFlag& map : kMaps) {
    for (const std::string& pair : args.Values(map.name)) {
      PULGA_RETURN_IF_ERROR(AddPair(map.name, pair, &(*spec)[map.field]));
    }
  }
  PULGA_RETURN_IF_ERROR(ApplyAccessFlags(args, spec));
  if (args.Has("allow-unenforced")) (*spec)["allow_unenforced"] = true;
  if (args.Has("command")) (*spec)["command"] = args.Values("command");
  if (args.Has("arg")) (*spec)["args"] = args.Values("arg");
  if (const auto image = args.Value("image")) (*spec)["image"] = *image;
  return OkStatus();
}

}  // namespace

std::vector<Option> DeploySpecOptions() {
  std::vector<Option> out = {
      {"image", 'i', "REF|FILE", "an image, pulled when it is not here, or an archive to import"},
      {"file", 'f', "FILE", "function.json; flags win over it"},
      {"env", 'e', "K=V", "an environment variable; may be repeated"},
      {"command", 0, "WORD", "replaces the image's command; repeat for each word"},
      {"arg", 0, "WORD", "replaces its arguments; repeat for each word"},
      {"allow-unenforced", 0, "", "only warn of cpu and io limits this kernel can not hold"},
      {"label", 0, "K=V", "a label; may be repeated"},
      {"annotation", 0, "K=V", "an annotation; may be repeated"},
      {"allow", 0, "PEER", "egress to: [udp:]ADDRESS[/BITS]|NAME[:PORT[-PORT]]; may be repeated"},
      {"secret", 0, "NAME", "a file in /var/openfaas/secrets; may be repeated"},
      {"volume", 0, "SPEC", "NAME|data-set=NAME|/HOST/DIR:PATH[:ro][:size=SIZE]; may be repeated"},
      {"device", 0, "DEVICE", "[GRANT:]/dev/PATH[,exclusive|,shared]; may be repeated"},
      {"capability", 0, "NAME", "e.g. NET_BIND_SERVICE; may be repeated"}};
  for (const SpecFlag& flag : kFlags) out.push_back({flag.name, 0, flag.value_name, flag.help});
  return out;
}

Result<DeploySpec> BuildDeploySpec(const Args& args, const std::string& file_text) {
  Json spec = Json::object();
  if (!file_text.empty()) {
    const Status valid = CheckSpecDocument(file_text);
    if (!valid.ok()) return Prefix(args.Value("file").value_or("function.json"), valid.error());
    spec = Json::parse(file_text, nullptr, /*allow_exceptions=*/false);
  }
  for (const char* section : {"limits", "scale", "network", "env", "labels", "annotations"}) {
    if (spec.contains(section) && !spec[section].is_object()) {
      return Error{Code::kInvalidArgument, 0, std::string(section) + " must be an object"};
    }
  }
  DeploySpec out;
  if (spec.contains("name") && spec["name"].is_string()) {
    out.name = spec["name"];
    spec.erase("name");
  }
  PULGA_RETURN_IF_ERROR(ApplyFlags(args, &spec));
  if (spec.contains("image") && spec["image"].is_string()) out.image = spec["image"];
  out.pulls = !spec.contains("pull") || spec["pull"] == "if-not-present";
  out.json = spec.dump(-1, ' ', false, Json::error_handler_t::replace);
  return out;
}

std::string WithImage(const std::string& json, const std::string& image) {
  Json spec = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  spec["image"] = image;
  return spec.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool LooksLikeArchive(const std::string& image) {
  for (const std::string_view end : {".tar", ".tar.gz", ".tgz", ".tar.zst"}) {
    if (image.size() > end.size() && image.ends_with(end)) return true;
  }
  const bool is_path = image[0] == '/' || image.starts_with("./") || image.starts_with("../");
  return is_path && access(image.c_str(), F_OK) == 0;
}

}  // namespace pulga::cli
