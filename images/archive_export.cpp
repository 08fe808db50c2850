#include "images/archive_export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "images/digest.h"
#include "images/image_ref.h"
#include "images/tar_member.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kLayerType = "application/vnd.oci.image.layer.v1.tar";
constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kConfigType = "application/vnd.oci.image.config.v1+json";
constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

std::string WholeMember(const std::string& name, const std::string& content) {
  return TarHeader({name, '0', content.size()}) + content + TarPadding(content.size());
}

std::string BlobName(const std::string& hex) { return "blobs/sha256/" + hex; }

Json DescriptorOf(const char* type, const std::string& hex, uint64_t size) {
  return {{"mediaType", type}, {"digest", "sha256:" + hex}, {"size", size}};
}

std::string ManifestOf(const ImageRecord& image, const std::string& config_hex) {
  Json layers = Json::array();
  for (const LayerRecord& layer : image.layers) {
    layers.push_back(DescriptorOf(kLayerType, layer.diff_id, layer.stream_bytes));
  }
  return Json({{"schemaVersion", 2},
               {"mediaType", kManifestType},
               {"config", DescriptorOf(kConfigType, config_hex, image.config_bytes)},
               {"layers", layers}})
      .dump();
}

std::string IndexOf(const std::string& manifest, const std::string& ref) {
  Json entry = DescriptorOf(kManifestType, Sha256Hex(manifest), manifest.size());
  if (!ref.empty()) {
    const size_t colon = ref.rfind(':');
    entry["annotations"] = {{"io.containerd.image.name", ref},
                            {"org.opencontainers.image.ref.name", ref.substr(colon + 1)}};
  }
  return Json({{"schemaVersion", 2},
               {"mediaType", kIndexType},
               {"manifests", Json::array({std::move(entry)})}})
      .dump();
}

std::string SavedImageOf(const ImageRecord& image, const std::string& config_hex,
                         const std::string& ref) {
  Json layers = Json::array();
  Json sources = Json::object();
  for (const LayerRecord& layer : image.layers) {
    layers.push_back(BlobName(layer.diff_id));
    sources["sha256:" + layer.diff_id] =
        DescriptorOf(kLayerType, layer.diff_id, layer.stream_bytes);
  }
  const Json tags = ref.empty() ? Json(nullptr) : Json::array({FamiliarName(ref)});
  return Json::array({Json({{"Config", BlobName(config_hex)},
                            {"RepoTags", tags},
                            {"Layers", layers},
                            {"LayerSources", sources}})})
      .dump();
}

Status CheckRecords(const ImageRecord& image) {
  for (const LayerRecord& layer : image.layers) {
    if (layer.record_bytes != 0) continue;
    return Error{Code::kUnsupported, 0,
                 "this image was imported before layers had records: remove it and import it "
                 "again, then it can be exported and verified"};
  }
  return OkStatus();
}

}  // namespace

Result<ExportPlan> PlanExport(const ImageRecord& image, const std::string& ref) {
  PULGA_RETURN_IF_ERROR(CheckRecords(image));
  const std::string config_hex = image.digest.substr(image.digest.find(':') + 1);
  const std::string manifest = ManifestOf(image, config_hex);
  std::string text = WholeMember("oci-layout", R"({"imageLayoutVersion":"1.0.0"})") +
                     WholeMember("index.json", IndexOf(manifest, ref)) +
                     WholeMember("manifest.json", SavedImageOf(image, config_hex, ref)) +
                     TarHeader({"blobs/", '5', 0}) + TarHeader({"blobs/sha256/", '5', 0}) +
                     WholeMember(BlobName(Sha256Hex(manifest)), manifest) +
                     TarHeader({BlobName(config_hex), '0', image.config_bytes});
  ExportPlan plan;
  plan.parts.push_back({text, {}, "", image.config_bytes, 0});
  text = TarPadding(image.config_bytes);
  std::set<std::string> written;
  for (const LayerRecord& layer : image.layers) {
    if (!written.insert(layer.diff_id).second) continue;  // the same blob twice
    text += TarHeader({BlobName(layer.diff_id), '0', layer.stream_bytes});
    plan.parts.push_back({text, layer.chain_id, layer.diff_id, 0, layer.stream_bytes});
    text = TarPadding(layer.stream_bytes);
  }
  plan.parts.push_back({text + std::string(2 * kTarBlock, '\0'), {}, "", 0, 0});
  for (const ExportPart& part : plan.parts) {
    plan.bytes += part.text.size() + part.config_bytes + part.layer_bytes;
  }
  return plan;
}

}  // namespace pulga
