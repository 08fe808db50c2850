#include "images/archive_export.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "images/digest.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBlock = 512;
constexpr uint64_t kOctalLimit = uint64_t{1} << 33;  // eleven digits
constexpr const char* kLayerType = "application/vnd.oci.image.layer.v1.tar";
constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kConfigType = "application/vnd.oci.image.config.v1+json";
constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

struct Member {
  std::string name;
  char type = '0';
  uint64_t size = 0;
};

// One ustar header, the same on every machine and day.
std::string HeaderOf(const Member& member) {
  std::array<char, kBlock> header = {};
  const auto put = [&header](size_t at, std::string_view text) {
    memcpy(header.data() + at, text.data(), text.size());
  };
  put(0, member.name);  // at most 77 bytes: "blobs/sha256/" and a digest
  put(100, member.type == '5' ? "0000755" : "0000644");
  put(108, "0000000");
  put(116, "0000000");
  char size[16];
  if (member.size < kOctalLimit) {
    snprintf(size, sizeof size, "%011llo", static_cast<unsigned long long>(member.size));
    put(124, size);
  } else {  // as GNU tar does
    header[124] = static_cast<char>(0x80);
    for (size_t i = 0; i < 8; ++i) {
      header[135 - i] = static_cast<char>(static_cast<unsigned char>(member.size >> (8 * i)));
    }
  }
  put(136, "00000000000");
  put(148, "        ");
  header[156] = member.type;
  put(257, "ustar");
  put(263, "00");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  char checksum[16];
  snprintf(checksum, sizeof checksum, "%06o", sum);
  put(148, std::string_view(checksum, 7));
  return {header.data(), header.size()};
}

std::string Padding(uint64_t size) { return std::string((kBlock - size % kBlock) % kBlock, '\0'); }

std::string WholeMember(const std::string& name, const std::string& content) {
  return HeaderOf({name, '0', content.size()}) + content + Padding(content.size());
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
                     HeaderOf({"blobs/", '5', 0}) + HeaderOf({"blobs/sha256/", '5', 0}) +
                     WholeMember(BlobName(Sha256Hex(manifest)), manifest) +
                     HeaderOf({BlobName(config_hex), '0', image.config_bytes});
  ExportPlan plan;
  plan.parts.push_back({text, {}, "", image.config_bytes, 0});
  text = Padding(image.config_bytes);
  std::set<std::string> written;
  for (const LayerRecord& layer : image.layers) {
    if (!written.insert(layer.diff_id).second) continue;  // the same blob twice
    text += HeaderOf({BlobName(layer.diff_id), '0', layer.stream_bytes});
    plan.parts.push_back({text, layer.chain_id, layer.diff_id, 0, layer.stream_bytes});
    text = Padding(layer.stream_bytes);
  }
  plan.parts.push_back({text + std::string(2 * kBlock, '\0'), {}, "", 0, 0});
  for (const ExportPart& part : plan.parts) {
    plan.bytes += part.text.size() + part.config_bytes + part.layer_bytes;
  }
  return plan;
}

}  // namespace pulga
