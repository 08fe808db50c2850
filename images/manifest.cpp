#include "images/manifest.h"

#include "base/text.h"
#include "images/json.h"

namespace pulga {
namespace {

constexpr size_t kMaxTextBytes = 4096;
constexpr std::string_view kManifestTypes[] = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json"};
constexpr std::string_view kIndexTypes[] = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json"};

Error Bad(std::string_view what, std::string_view why) {
  return {Code::kInvalidArgument, 0, std::string(what) + ": " + std::string(why)};
}

bool IsOneOf(std::string_view type, std::span<const std::string_view> known) {
  for (const std::string_view one : known) {
    if (one == type) return true;
  }
  return false;
}

Result<std::string> ReadText(std::string_view what, JsonValue value) {
  if (value.IsNull()) return std::string();
  auto text = value.AsString();
  if (!text) return Bad(what, "must be a string");
  if (text->size() > kMaxTextBytes || text->find('\0') != std::string::npos) {
    return Bad(what, "is too long or holds a NUL");
  }
  return std::move(*text);
}

Result<std::vector<std::string>> ReadTexts(std::string_view what, JsonValue value) {
  std::vector<std::string> out;
  if (!value.IsNull() && !value.IsArray()) return Bad(what, "must be an array of strings");
  for (size_t i = 0; i < value.size(); ++i) {
    if (value.At(i).IsNull()) return Bad(what, "must be an array of strings");
    PULGA_ASSIGN_OR_RETURN(std::string text, ReadText(what, value.At(i)));
    out.push_back(std::move(text));
  }
  return out;
}

Result<std::optional<Platform>> ReadPlatform(JsonValue value) {
  if (value.IsNull()) return std::optional<Platform>();
  if (!value.IsObject()) return Bad("platform", "must be an object");
  Platform platform;
  PULGA_ASSIGN_OR_RETURN(platform.os, ReadText("platform.os", value.Get("os")));
  PULGA_ASSIGN_OR_RETURN(platform.architecture,
                         ReadText("platform.architecture", value.Get("architecture")));
  PULGA_ASSIGN_OR_RETURN(platform.variant, ReadText("platform.variant", value.Get("variant")));
  return std::optional<Platform>(std::move(platform));
}

Result<Descriptor> ReadDescriptor(std::string_view what, JsonValue value) {
  if (!value.IsObject()) return Bad(what, "must be an object");
  Descriptor out;
  PULGA_ASSIGN_OR_RETURN(out.media_type, ReadText("mediaType", value.Get("mediaType")));
  PULGA_ASSIGN_OR_RETURN(const std::string digest, ReadText("digest", value.Get("digest")));
  const auto parsed = ParseDigest(digest);
  if (!parsed) return Bad(what, "'" + Printable(digest, 100) + "' is no sha256 or sha512 digest");
  out.digest = *parsed;
  const auto size = value.Get("size").AsUint();
  if (!size || *size > INT64_MAX) return Bad(what, "its size must be a whole number");
  out.size = *size;
  PULGA_ASSIGN_OR_RETURN(out.platform, ReadPlatform(value.Get("platform")));
  const JsonValue notes = value.Get("annotations");
  out.name = notes.Get("io.containerd.image.name").AsString().value_or("");
  if (out.name.empty()) {
    out.name = notes.Get("org.opencontainers.image.ref.name").AsString().value_or("");
  }
  const bool about_another = !notes.Get("vnd.docker.reference.type").IsNull();
  const bool nowhere = out.platform && out.platform->os == "unknown";
  out.is_image = !about_another && !nowhere;
  return out;
}

Result<std::vector<Descriptor>> ReadDescriptors(std::string_view what, JsonValue value) {
  std::vector<Descriptor> out;
  if (!value.IsNull() && !value.IsArray()) return Bad(what, "must be an array");
  for (size_t i = 0; i < value.size(); ++i) {
    PULGA_ASSIGN_OR_RETURN(Descriptor one, ReadDescriptor(what, value.At(i)));
    out.push_back(std::move(one));
  }
  return out;
}

Status CheckLayerTypes(const std::vector<Descriptor>& layers) {
  for (const Descriptor& layer : layers) {
    if (layer.media_type.find("+encrypted") != std::string::npos) {
      return Bad("manifest", "its layers are encrypted");
    }
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<SavedImage>> ParseSavedImages(std::string_view json) {
  constexpr std::string_view kName = "manifest.json";
  PULGA_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(kName, json));
  const JsonValue root = document.root();
  if (!root.Get("schemaVersion").IsNull()) {
    return Bad(kName,
               "a single manifest, as `podman save --format docker-dir` writes; save the image as "
               "docker-archive or oci-archive");
  }
  if (!root.IsArray()) return Bad(kName, "must be an array of images");
  std::vector<SavedImage> out;
  for (size_t i = 0; i < root.size(); ++i) {
    const JsonValue image = root.At(i);
    if (!image.IsObject()) return Bad(kName, "must be an array of objects");
    SavedImage saved;
    PULGA_ASSIGN_OR_RETURN(saved.config, ReadText("manifest.json: Config", image.Get("Config")));
    if (saved.config.empty()) return Bad(kName, "an image without Config");
    PULGA_ASSIGN_OR_RETURN(saved.repo_tags,
                           ReadTexts("manifest.json: RepoTags", image.Get("RepoTags")));
    PULGA_ASSIGN_OR_RETURN(saved.layers, ReadTexts("manifest.json: Layers", image.Get("Layers")));
    out.push_back(std::move(saved));
  }
  return out;
}

Result<OciDocument> ParseOciDocument(std::string_view json) {
  PULGA_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse("manifest", json));
  const JsonValue root = document.root();
  if (!root.IsObject()) return Bad("manifest", "must be an object");
  if (!root.Get("fsLayers").IsNull()) {
    return Bad("manifest",
               "it is of schema 1, as before Docker 1.10: push the image again with a newer tool");
  }
  const bool has_manifests = !root.Get("manifests").IsNull();
  const bool has_layers = !root.Get("layers").IsNull() || !root.Get("config").IsNull();
  if (has_manifests && has_layers) return Bad("manifest", "it is a manifest and an index at once");
  PULGA_ASSIGN_OR_RETURN(const std::string type, ReadText("mediaType", root.Get("mediaType")));
  OciDocument out;
  out.is_index = !has_layers;
  if (IsOneOf(type, out.is_index ? kManifestTypes : kIndexTypes)) {
    return Bad("manifest", "its mediaType is not what it holds");
  }
  if (out.is_index) {
    PULGA_ASSIGN_OR_RETURN(auto all, ReadDescriptors("manifests", root.Get("manifests")));
    for (Descriptor& one : all) {
      const bool known = one.media_type.empty() || IsOneOf(one.media_type, kManifestTypes) ||
                         IsOneOf(one.media_type, kIndexTypes);
      if (known && one.is_image) out.manifests.push_back(std::move(one));
    }
    return out;
  }
  PULGA_ASSIGN_OR_RETURN(out.config, ReadDescriptor("config", root.Get("config")));
  PULGA_ASSIGN_OR_RETURN(out.layers, ReadDescriptors("layers", root.Get("layers")));
  PULGA_RETURN_IF_ERROR(CheckLayerTypes(out.layers));
  return out;
}

Status CheckOciLayout(std::string_view json) {
  PULGA_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse("oci-layout", json));
  const auto version = document.root().Get("imageLayoutVersion").AsString();
  if (!version || !version->starts_with("1.")) {
    return Bad("oci-layout", "imageLayoutVersion 1.0.0 is expected");
  }
  return OkStatus();
}

}  // namespace pulga
