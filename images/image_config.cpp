#include "images/image_config.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "images/digest.h"
#include "images/json.h"

namespace pulga {
namespace {

constexpr size_t kMaxStrings = 4096;
constexpr size_t kStringBytes = 64;  // beside its text
constexpr size_t kMaxLabels = 256;
constexpr size_t kMaxTextBytes = 4096;

Error Bad(std::string_view field, std::string_view why) {
  return {Code::kInvalidArgument, 0,
          "image configuration: " + std::string(field) + " " + std::string(why)};
}

Status ReadText(JsonValue object, std::string_view field, std::string& out) {
  const JsonValue value = object.Get(field);
  if (value.IsNull()) return OkStatus();
  auto text = value.AsString();
  if (!text) return Bad(field, "must be a string");
  if (text->size() > kMaxTextBytes) return Bad(field, "is too long");
  if (text->find('\0') != std::string::npos) return Bad(field, "holds a NUL");
  out = std::move(*text);
  return OkStatus();
}

// `room`: of kMaxRunBytes, what is left.
Status ReadStrings(JsonValue object, std::string_view field, size_t& room,
                   std::vector<std::string>& out) {
  const JsonValue value = object.Get(field);
  if (value.IsNull()) return OkStatus();
  if (!value.IsArray()) return Bad(field, "must be an array of strings");
  if (value.size() > kMaxStrings) return Bad(field, "has too many entries");
  for (size_t i = 0; i < value.size(); ++i) {
    auto text = value.At(i).AsString();
    if (!text) return Bad(field, "must be an array of strings");
    if (text->find('\0') != std::string::npos) return Bad(field, "holds a NUL");
    const size_t taken = text->size() + kStringBytes;
    if (taken > room) return Bad(field, "is too long");
    room -= taken;
    out.push_back(std::move(*text));
  }
  return OkStatus();
}

// "K=V" only, each key once, the last value in the place of the first.
std::vector<std::string> UniqueEnv(std::vector<std::string> env) {
  std::vector<std::string> out;
  std::map<std::string, size_t, std::less<>> places;
  for (std::string& entry : env) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    const auto [place, added] = places.try_emplace(entry.substr(0, equals), out.size());
    if (added) {
      out.push_back(std::move(entry));
    } else {
      out[place->second] = std::move(entry);
    }
  }
  return out;
}

// "8080/tcp" or "8080"; anything else asks for nothing we would do.
Result<std::vector<uint16_t>> ReadPorts(JsonValue object) {
  const JsonValue ports = object.Get("ExposedPorts");
  if (!ports.IsNull() && !ports.IsObject()) return Bad("ExposedPorts", "must be an object");
  std::set<uint16_t> out;
  ports.ForEach([&](const std::string& key, JsonValue) {
    std::string_view number = key;
    if (number.ends_with("/tcp")) number.remove_suffix(4);
    const auto port = ParseUint(number, 65535);
    if (port && *port > 0) out.insert(static_cast<uint16_t>(*port));
  });
  return std::vector<uint16_t>(out.begin(), out.end());
}

Status ReadLabels(JsonValue object, std::map<std::string, std::string>& out) {
  const JsonValue labels = object.Get("Labels");
  if (!labels.IsNull() && !labels.IsObject()) return Bad("Labels", "must be an object");
  bool valid = true;
  size_t room = kMaxLabelBytes;
  labels.ForEach([&](const std::string& key, JsonValue value) {
    auto text = value.AsString();
    valid = valid && (text || value.IsNull());
    const size_t bytes = key.size() + (text ? text->size() : 0);
    if (!text || out.size() >= kMaxLabels || bytes > std::min(kMaxTextBytes, room)) return;
    room -= bytes;
    out[key] = std::move(*text);
  });
  return valid ? OkStatus() : Status(Bad("Labels", "must hold strings"));
}

Status ReadRunPart(JsonValue root, ImageConfig& out) {
  const JsonValue config = root.Get("config");
  if (config.IsNull()) return OkStatus();
  if (!config.IsObject()) return Bad("config", "must be an object");
  size_t room = kMaxRunBytes;
  PULGA_RETURN_IF_ERROR(ReadStrings(config, "Entrypoint", room, out.entrypoint));
  PULGA_RETURN_IF_ERROR(ReadStrings(config, "Cmd", room, out.cmd));
  PULGA_RETURN_IF_ERROR(ReadStrings(config, "Env", room, out.env));
  out.env = UniqueEnv(std::move(out.env));
  PULGA_RETURN_IF_ERROR(ReadText(config, "WorkingDir", out.working_dir));
  PULGA_RETURN_IF_ERROR(ReadText(config, "User", out.user));
  PULGA_RETURN_IF_ERROR(ReadText(config, "StopSignal", out.stop_signal));
  PULGA_ASSIGN_OR_RETURN(out.exposed_ports, ReadPorts(config));
  return ReadLabels(config, out.labels);
}

Status ReadDiffIds(JsonValue root, std::vector<std::string>& out) {
  const JsonValue rootfs = root.Get("rootfs");
  if (!rootfs.IsObject()) return Bad("rootfs", "must be an object");
  if (rootfs.Get("type").AsString() != "layers") return Bad("rootfs.type", "must be \"layers\"");
  const JsonValue ids = rootfs.Get("diff_ids");
  if (!ids.IsNull() && !ids.IsArray()) return Bad("rootfs.diff_ids", "must be an array");
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto digest = ParseDigest(ids.At(i).AsString().value_or(""));
    if (!digest || digest->algorithm != DigestAlgorithm::kSha256) {
      return Bad("rootfs.diff_ids", "must hold sha256 digests");
    }
    out.push_back(digest->hex);
  }
  return OkStatus();
}

}  // namespace

Result<ParsedConfig> ParseImageConfig(std::string_view json) {
  PULGA_ASSIGN_OR_RETURN(const JsonDocument document,
                         JsonDocument::Parse("image configuration", json));
  const JsonValue root = document.root();
  if (!root.IsObject()) return Bad("the document", "must be an object");
  ParsedConfig out;
  PULGA_RETURN_IF_ERROR(ReadText(root, "os", out.platform.os));
  PULGA_RETURN_IF_ERROR(ReadText(root, "architecture", out.platform.architecture));
  PULGA_RETURN_IF_ERROR(ReadText(root, "variant", out.platform.variant));
  PULGA_RETURN_IF_ERROR(ReadRunPart(root, out.config));
  PULGA_RETURN_IF_ERROR(ReadDiffIds(root, out.diff_ids));
  return out;
}

}  // namespace pulga
