#include "api/json_codec.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "api/board_codec.h"
#include "base/text.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "runtime/spec_json.h"
#include "sandbox/isolation.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBodyBytes = 64 * 1024;
constexpr int kMaxDepth = 64;

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}
std::string DumpLine(const Json& json) { return Dump(json) + "\n"; }

Json LayersJson(const std::vector<LayerRecord>& layers) {
  Json out = Json::array();
  for (const LayerRecord& layer : layers) {
    out.push_back({{"diff_id", "sha256:" + layer.diff_id},
                   {"chain_id", "sha256:" + layer.chain_id.Hex()},
                   {"size_bytes", layer.size_bytes},
                   {"disk_bytes", layer.disk_bytes + layer.record_bytes},
                   {"reused", layer.reused}});
  }
  return out;
}

// One entry per name; an untagged image is known by its digest.
void AppendImported(const ImageRecord& image, Json* out) {
  std::vector<std::string> refs = image.refs;
  if (refs.empty()) refs.push_back(image.digest);
  for (const std::string& ref : refs) {
    out->push_back({{"ref", FamiliarName(ref)},
                    {"digest", image.digest},
                    {"platform", PlatformName(image.platform)},
                    {"size_bytes", image.size_bytes},
                    {"layers", LayersJson(image.layers)},
                    {"warnings", Json::array()}});
  }
}

Json ImportedImages(const ImportReport& report) {
  Json images = Json::array();
  for (const ImageRecord& image : report.images) AppendImported(image, &images);
  // Warnings are about the archive; each image entry shows them.
  for (Json& image : images) image["warnings"] = report.warnings;
  return images;
}

Json ErrorToJson(const ApiError& error) {
  Json details = Json::object();
  for (const auto& [name, value] : error.details) details[name] = value;
  return {{"code", error.code}, {"message", error.message}, {"details", details}};
}

const char* StateName(UploadState state) {
  switch (state) {
    case UploadState::kReceiving:
      return "receiving";
    case UploadState::kImporting:
      return "importing";
    case UploadState::kDone:
      return "imported";
    case UploadState::kFailed:
      return "failed";
    case UploadState::kGone:
      return "gone";
  }
  return "gone";
}

Json UploadToJson(const UploadView& view) {
  const StoredUpload& upload = view.upload;
  Json out = {{"id", upload.id},
              {"state", StateName(view.state)},
              {"length", upload.length},
              {"offset", upload.offset},
              {"busy", view.busy},
              {"filename", upload.filename},
              {"ref", upload.ref},
              {"metadata", upload.metadata},
              {"created_at", Rfc3339(upload.created_ms)},
              {"expires_at", Rfc3339(view.expires_ms)}};
  if (view.report == nullptr) return out;
  if (view.report->status.ok()) {
    out["images"] = ImportedImages(*view.report);
  } else {
    const ApiError error = ToApiError(*view.report);
    out["error"] = ErrorToJson(error);
    out["error"]["status"] = error.status;
  }
  return out;
}

Json ImageToJson(const ImageRecord& image) {
  Json refs = Json::array();
  for (const std::string& ref : image.refs) refs.push_back(FamiliarName(ref));
  const ImageConfig& c = image.config;
  return {{"refs", refs},
          {"digest", image.digest},
          {"platform", PlatformName(image.platform)},
          {"owner", image.owner},
          {"size_bytes", image.size_bytes},
          {"disk_bytes", image.disk_bytes},
          {"shared_bytes", image.shared_bytes},
          {"unique_bytes", image.disk_bytes - image.shared_bytes},
          {"last_used_at", Rfc3339(image.last_used_unix_ms)},
          {"layers", LayersJson(image.layers)},
          {"config",
           {{"entrypoint", c.entrypoint},
            {"cmd", c.cmd},
            {"env", c.env},
            {"working_dir", c.working_dir},
            {"user", c.user},
            {"exposed_ports", c.exposed_ports},
            {"stop_signal", c.stop_signal},
            {"labels", Json(c.labels)}}}};
}

const char* ModeName(SandboxMode mode) {
  if (mode == SandboxMode::kFrames) return "frames";
  return mode == SandboxMode::kExec ? "exec" : "http";
}

Json VersionJson(const Version& version, bool active) {
  return {{"version", version.number},
          {"active", active},
          {"image", FamiliarName(version.image_ref)},
          {"image_digest", version.image_digest},
          {"mode", ModeName(version.mode)},
          {"created_at", Rfc3339(version.created_unix_ms)}};
}

Json CostsJson(const std::vector<RungStatus>& costs) {
  Json out = Json::object();
  for (const RungStatus& rung : costs) {
    const double start_ms = std::chrono::duration<double, std::milli>(rung.cost.start).count();
    out[std::string(rung.rung)] = {{"start_ms", std::round(start_ms * 1000) / 1000},
                                   {"starts", rung.starts},
                                   {"memory_bytes", rung.cost.bytes},
                                   {"memory_observations", rung.sights}};
  }
  return out;
}

// Between the ends of a range; null while nothing was ever started.
Json LimitsNow(const InstanceSize& size) {
  if (size.memory_bytes == 0) return nullptr;
  return {{"memory", FormatBytes(size.memory_bytes)}, {"cpu", FormatCpuMillis(size.cpu_millis)}};
}

// What a list of all functions says of each.
Json GlanceJson(const FunctionActivity& activity) {
  Json instances = Json::array();
  for (const InstanceStatus& instance : activity.instances) {
    instances.push_back({{"slot", instance.slot},
                         {"step", instance.step},
                         {"open_calls", instance.open_calls},
                         {"memory_bytes", instance.memory.total},
                         {"children", instance.children},
                         {"age_ms", instance.age_ms}});
  }
  Json outcomes = Json::object();
  for (const auto& [name, count] : activity.outcomes) outcomes[name] = count;
  return {{"instances", instances},
          {"queued", activity.queued},
          {"invocations", activity.invocations},
          {"outcomes", outcomes},
          {"last_decision", activity.last_decision},
          {"trouble", activity.trouble}};
}

Json ActivityJson(const FunctionActivity& activity) {
  Json out = GlanceJson(activity);
  for (size_t i = 0; i < activity.instances.size(); ++i) {
    const InstanceMemory& memory = activity.instances[i].memory;
    out["instances"][i]["memory"] = {{"anon_bytes", memory.anon},
                                     {"file_bytes", memory.file},
                                     {"kernel_bytes", memory.kernel},
                                     {"swapped_bytes", memory.swapped}};
  }
  Json decisions = Json::array();
  for (const Decision& decision : activity.decisions) {
    decisions.push_back({{"at", Rfc3339(decision.unix_ms)}, {"text", decision.text}});
  }
  Json refused = Json::object();
  uint64_t refused_count = 0;
  for (const auto& [name, count] : activity.refused) {
    refused[std::string(name)] = count;
    refused_count += count;
  }
  out["refused_calls"] = {{"count", refused_count}, {"by_name", refused}};
  out["decisions"] = decisions;
  out["limits_now"] = LimitsNow(activity.size);
  out["keep_alive"] = activity.keep_alive;
  out["costs"] = CostsJson(activity.costs);
  return out;
}

Json TaskTotalsToJson(const TaskTotals& totals) {
  return {{"queued", totals.counts.queued},
          {"running", totals.counts.running},
          {"ended", totals.ended},
          {"callbacks", totals.callbacks},
          {"size_bytes", totals.bytes}};
}

// But for its activity.
Json FunctionToJson(const FunctionStatus& status) {
  Json out = {{"name", status.key.name},
              {"namespace", status.key.name_space},
              {"url", "/function/" + status.key.name},
              {"tasks", {{"queued", status.tasks.queued}, {"running", status.tasks.running}}}};
  if (status.active) {
    const Version& active = *status.active;
    out["version"] = active.number;
    out["image"] = FamiliarName(active.image_ref);
    out["image_digest"] = active.image_digest;
    out["mode"] = ModeName(active.mode);
    out["mode_reason"] = active.mode_reason;
    out["command"] = active.argv;
    out["port"] = active.mode == SandboxMode::kHttp ? Json(active.port) : Json(nullptr);
    out["concurrency"] = active.concurrency;
    out["created_at"] = Rfc3339(active.created_unix_ms);
    out["spec"] = Json::parse(SpecToJson(active.spec), nullptr, /*allow_exceptions=*/false);
  }
  Json versions = Json::array();
  for (const VersionPtr& version : status.versions) {
    const bool active = status.active && version->number == status.active->number;
    versions.push_back(VersionJson(*version, active));
  }
  out["versions"] = versions;
  return out;
}

Json FeatureArray(const std::vector<Feature>& features) {
  Json out = Json::array();
  for (const Feature& feature : features) {
    out.push_back({{"name", feature.name},
                   {"state", std::string(FeatureStateName(feature.state))},
                   {"detail", feature.detail},
                   {"advice", feature.advice}});
  }
  return out;
}

// "why" is empty for most that are present.
Json LayerArray(const std::vector<Feature>& layers) {
  Json out = Json::array();
  for (const Feature& layer : layers) {
    out.push_back({{"layer", layer.name},
                   {"state", std::string(FeatureStateName(layer.state))},
                   {"why", layer.detail}});
  }
  return out;
}

Json GrantArray(const std::vector<GrantLine>& grants) {
  Json out = Json::array();
  for (const GrantLine& grant : grants) {
    out.push_back({{"line", grant.number}, {"grant", grant.text}});
  }
  return out;
}

Error BadBody(std::string message) { return Error{Code::kInvalidArgument, 0, std::move(message)}; }

// Refuses what the parser alone lets pass: repeated keys, deep nesting.
Result<Json> ParseObject(std::string_view text) {
  if (text.size() > kMaxBodyBytes)
    return Error{Code::kTooLarge, 0, "the request body is too large"};
  std::vector<std::set<std::string>> keys;
  std::string problem;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) problem = "the JSON is nested too deeply";
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.empty() &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      problem = "the field \"" + Printable(parsed.get<std::string>(), 40) + "\" is given twice";
    }
    return problem.empty();
  };
  Json json = Json::parse(text, watch, /*allow_exceptions=*/false);
  if (!problem.empty()) return BadBody(problem);
  if (json.is_discarded()) return BadBody("the request body is not valid JSON");
  if (!json.is_object()) return BadBody("the request body must be a JSON object");
  return json;
}

// The one allowed field of a small body, as an unsigned number of at most `max`.
Result<std::optional<uint32_t>> OneNumber(std::string_view text, const char* field, uint32_t min,
                                          uint32_t max) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseObject(text));
  std::optional<uint32_t> out;
  for (const auto& [name, value] : json.items()) {
    if (name != field) return BadBody("unknown field \"" + Printable(name, 40) + "\"");
    if (value.is_null()) continue;
    if (!value.is_number_unsigned() || value.get<uint64_t>() < min || value.get<uint64_t>() > max) {
      return BadBody(std::string(field) + " must be a whole number from " + std::to_string(min) +
                     " to " + std::to_string(max));
    }
    out = static_cast<uint32_t>(value.get<uint64_t>());
  }
  return out;
}

}  // namespace

std::string Rfc3339(int64_t unix_ms) {
  const time_t seconds = static_cast<time_t>(unix_ms / 1000);
  tm utc = {};
  gmtime_r(&seconds, &utc);
  char day[32];
  strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &utc);
  char out[48];
  snprintf(out, sizeof out, "%s.%03dZ", day, static_cast<int>(unix_ms % 1000));
  return out;
}

std::string ErrorJson(const ApiError& error) { return DumpLine({{"error", ErrorToJson(error)}}); }

std::string ImportReportJson(const ImportReport& report) {
  return DumpLine({{"images", ImportedImages(report)}});
}

std::string UploadJson(const UploadView& view) { return DumpLine(UploadToJson(view)); }

std::string UploadListJson(const std::vector<UploadView>& uploads) {
  Json list = Json::array();
  for (const UploadView& view : uploads) list.push_back(UploadToJson(view));
  return DumpLine({{"uploads", list}});
}

std::string VerifyReportJson(const VerifyReport& report) {
  Json layers = Json::array();
  for (const LayerVerdict& layer : report.layers) {
    Json differences = Json::array();
    for (const LayerDifference& difference : layer.differences) {
      differences.push_back({{"path", difference.path}, {"what", difference.what}});
    }
    layers.push_back({{"diff_id", "sha256:" + layer.diff_id},
                      {"intact", layer.differences.empty()},
                      {"differences", differences}});
  }
  return DumpLine(
      {{"digest", report.image.digest}, {"intact", report.intact()}, {"layers", layers}});
}

std::string PruneReportJson(const PruneReport& report) {
  Json images = Json::array();
  for (const ImageRecord& image : report.images) {
    Json refs = Json::array();
    for (const std::string& ref : image.refs) refs.push_back(FamiliarName(ref));
    images.push_back({{"digest", image.digest}, {"refs", refs}});
  }
  return DumpLine(
      {{"images", images}, {"layers", report.layers}, {"freed_bytes", report.freed_bytes}});
}

std::string ImageJson(const ImageRecord& image) { return DumpLine(ImageToJson(image)); }

std::string ImageListJson(const std::vector<ImageRecord>& images) {
  Json out = Json::array();
  for (const ImageRecord& image : images) {
    Json one = ImageToJson(image);
    one.erase("config");
    out.push_back(std::move(one));
  }
  return DumpLine({{"images", out}});
}

std::string FunctionJson(const FunctionStatus& status, const std::vector<std::string>& warnings) {
  Json out = FunctionToJson(status);
  out.update(ActivityJson(status.activity));
  const auto& next_run = status.next_run_unix_ms;
  out["next_run"] = next_run ? Json(Rfc3339(*next_run)) : Json(nullptr);
  out["warnings"] = warnings;
  out["isolation"] = LayerArray(status.activity.isolation);
  return DumpLine(out);
}

std::string FunctionListJson(const std::vector<FunctionStatus>& list) {
  std::string text = "{\"functions\":[";  // one tree of them all would take ten times the room
  for (const FunctionStatus& status : list) {
    Json one = FunctionToJson(status);
    one.update(GlanceJson(status.activity));
    if (&status != &list.front()) text += ',';
    text += Dump(one);
  }
  return text + "]}\n";
}

std::string SystemJson(const SystemReport& report) {
  return DumpLine({{"version", report.version},
                   {"state", report.state},
                   {"uptime_ms", report.uptime_ms},
                   {"platform", PlatformName(HostPlatform())},
                   {"memory_budget_bytes", report.memory_budget_bytes},
                   {"memory_used_bytes", report.memory_used_bytes},
                   {"functions", report.functions},
                   {"instances", report.instances},
                   {"images", report.images},
                   {"launcher_restarts", report.launcher_restarts},
                   {"features", FeatureArray(report.features)},
                   {"isolation", LayerArray(BoardIsolation(report.features))},
                   {"grants", GrantArray(report.grants)},
                   {"tasks", TaskTotalsToJson(report.tasks)},
                   {"board", Json::parse(BoardJson(report.board), nullptr, false)}});
}

std::string FeaturesJson(const std::vector<Feature>& features) {
  return DumpLine(
      {{"features", FeatureArray(features)}, {"isolation", LayerArray(BoardIsolation(features))}});
}

std::string LogLineJson(const LogLine& line) {
  return DumpLine({{"time", Rfc3339(line.unix_ms)},
                   {"version", line.version},
                   {"call_id", line.call_id},
                   {"stream", line.stream},
                   {"instance", line.instance},
                   {"text", line.text}});
}

std::string PullProgressJson(const PullProgress& progress) {
  return DumpLine({{"progress",
                    {{"layer", progress.layer + 1},
                     {"layers", progress.layers},
                     {"digest", progress.digest},
                     {"bytes", progress.bytes},
                     {"size", progress.size},
                     {"total_size", progress.total_size}}}});
}

Result<PullRequest> ParsePullBody(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseObject(text));
  PullRequest request;
  for (const auto& [name, value] : json.items()) {
    if (name == "ref" && value.is_string()) {
      request.ref = value.get<std::string>();
    } else if (name == "auth" && (value.is_string() || value.is_object())) {
      const Json entry = value.is_string() ? Json({{"auth", value}}) : value;
      // The same rules as for the administrator's file.
      const Json config = {{"auths", {{"registry.invalid", entry}}}};
      const auto logins =
          RegistryLogins::Parse(config.dump(-1, ' ', false, Json::error_handler_t::replace));
      if (!logins.ok()) return BadBody("auth: base64 of \"user:password\" is expected");
      request.login = logins->Find("registry.invalid");
    } else if (name != "auth" || !value.is_null()) {
      return BadBody(Printable(name, 40) + ": unknown field, or not what is expected there");
    }
  }
  if (request.ref.empty()) return BadBody("say which: {\"ref\": \"hello:1\"}");
  return request;
}

Result<PruneScope> ParsePruneBody(std::string_view text) {
  if (Trim(text).empty()) return PruneScope::kUntagged;
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseObject(text));
  PruneScope scope = PruneScope::kUntagged;
  for (const auto& [name, value] : json.items()) {
    if (name != "all") return BadBody("unknown field \"" + Printable(name, 40) + "\"");
    if (!value.is_boolean()) return BadBody("all must be true or false");
    scope = value.get<bool>() ? PruneScope::kUnused : PruneScope::kUntagged;
  }
  return scope;
}

Result<uint32_t> ParseScaleBody(std::string_view text) {
  auto number = OneNumber(text, "instances", 0, kMaxSlots);
  if (!number.ok()) return number.error();
  if (!*number) return BadBody("say how many: {\"instances\": 2}");
  return **number;
}

Result<std::optional<uint32_t>> ParseRollbackBody(std::string_view text) {
  if (Trim(text).empty()) return std::optional<uint32_t>();
  return OneNumber(text, "version", 1, UINT32_MAX);
}

}  // namespace pulga
