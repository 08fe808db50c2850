// The documents that say which images an archive holds: docker's manifest.json, OCI indexes and
// manifests. Text in, structs out; no file is touched.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/digest.h"
#include "images/image.h"

namespace pulga {

inline constexpr size_t kMaxManifestJsonBytes = 1 << 20;  // docker's manifest.json
inline constexpr size_t kMaxManifestBytes = 4 << 20;      // OCI indexes and manifests

// One image of docker's manifest.json.
struct SavedImage {
  std::string config;                  // a member's name
  std::vector<std::string> repo_tags;  // as written
  std::vector<std::string> layers;     // members' names, base first
};
Result<std::vector<SavedImage>> ParseSavedImages(std::string_view json);

struct Descriptor {
  std::string media_type;
  Digest digest;
  uint64_t size = 0;
  std::optional<Platform> platform;
  std::string name;      // of the image, from the annotations; may be a bare tag
  bool is_image = true;  // not an attestation or another thing about an image
};

// An OCI index or manifest (docker's lists and schema 2 are the same); a document that could be
// read as both is refused.
struct OciDocument {
  bool is_index = false;
  std::vector<Descriptor> manifests;  // of an index; those of unknown kinds left out
  Descriptor config;                  // of a manifest
  std::vector<Descriptor> layers;     // of a manifest
};
Result<OciDocument> ParseOciDocument(std::string_view json);
// kInvalidArgument unless `json` is an oci-layout file of version 1.
Status CheckOciLayout(std::string_view json);

}  // namespace pulga
