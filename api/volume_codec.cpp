#include "api/volume_codec.h"

#include <nlohmann/json.hpp>

#include "api/json_codec.h"
#include "base/text.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "runtime/spec_json.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

std::string DumpLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

const char* NameOf(VolumeStorage storage) {
  return storage == VolumeStorage::kProjectQuota ? "project-quota" : "loop-file";
}

Json ToJson(const VolumeView& volume) {
  const StoredVolume& row = volume.row;
  Json out = {{"name", row.key.name}, {"kind", row.data_set() ? "data_set" : "volume"}};
  if (row.data_set()) {
    out["image"] = volume.image_ref.empty() ? row.image_digest : FamiliarName(volume.image_ref);
    out["image_digest"] = row.image_digest;
  } else {
    out["size"] = FormatBytes(row.bytes);
    out["size_bytes"] = row.bytes;
    const bool known = volume.state && volume.state->total_bytes != 0;
    out["capacity_bytes"] = known ? Json(volume.state->total_bytes) : Json();
    out["used_bytes"] = known ? Json(volume.state->total_bytes - volume.state->free_bytes) : Json();
    out["mounted"] = volume.state ? Json(volume.state->mounted) : Json();
    out["storage"] = volume.state ? Json(NameOf(volume.state->storage)) : Json();
  }
  out["used_by"] = volume.used_by;
  out["trouble"] = volume.trouble;
  out["created_at"] = Rfc3339(row.created_unix_ms);
  return out;
}

Error BadBody(std::string message) { return Error{Code::kInvalidArgument, 0, std::move(message)}; }

}  // namespace

std::string VolumeJson(const VolumeView& volume) { return DumpLine(ToJson(volume)); }

std::string VolumeListJson(const VolumeList& list) {
  Json volumes = Json::array();
  for (const VolumeView& volume : list.volumes) volumes.push_back(ToJson(volume));
  Json unclaimed = Json::array();
  for (const VolumeState& state : list.unclaimed) {
    unclaimed.push_back({{"file", VolumeSource(state.id)}, {"size_bytes", state.file_bytes}});
  }
  return DumpLine({{"volumes", volumes}, {"unclaimed", unclaimed}});
}

Result<VolumeWish> ParseVolumeBody(std::string_view text) {
  PULGA_RETURN_IF_ERROR(CheckSpecDocument(text));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return BadBody("a JSON object is expected");
  VolumeWish wish;
  for (const auto& [name, value] : json.items()) {
    if (name != "size" && name != "image") {
      return BadBody(Printable(name, 40) + ": unknown field");
    }
    if (!value.is_string()) return BadBody(name + ": a text is expected");
    if (name == "image") {
      wish.image = value.get<std::string>();
      if (wish.image.empty()) return BadBody("image: is empty");
      continue;
    }
    const auto bytes = ParseBytes(value.get<std::string>());
    if (!bytes.ok()) return Prefix("size", bytes.error());
    wish.bytes = *bytes;
  }
  if (!json.contains("size") == !json.contains("image")) {
    return BadBody("either \"size\" (a volume) or \"image\" (a data set) is expected");
  }
  return wish;
}

Result<uint64_t> ParseResizeBody(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const VolumeWish wish, ParseVolumeBody(text));
  if (wish.image.empty()) return wish.bytes;
  return BadBody("image: a data set stays what it is; \"size\" is expected");
}

}  // namespace pulga
