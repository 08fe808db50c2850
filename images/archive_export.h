// An image as an archive again, as docker save has written it since 25 (blobs/, index.json,
// oci-layout, manifest.json), with the documents first, so that whoever reads it can unpack while
// it arrives. The same image gives the same bytes and, read back, the same ImageID. Pure: the
// layers' bytes and the configuration's are put in by somebody else. Source: OCI image-spec
// image-layout.md, manifest.md, index.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "images/image.h"

namespace pulga {

// `text`, then the image's configuration or `layer_bytes` of a layer's tar where there are any.
struct ExportPart {
  std::string text;
  LayerId layer;
  std::string diff_id;        // "" in a part without a layer
  uint64_t config_bytes = 0;  // not 0: the configuration follows
  uint64_t layer_bytes = 0;
};

struct ExportPlan {
  std::vector<ExportPart> parts;
  uint64_t bytes = 0;  // of the whole archive
};

// `ref` is the normalised name to give it; "" for none. kUnsupported when a layer came before there
// were records.
Result<ExportPlan> PlanExport(const ImageRecord& image, const std::string& ref);

}  // namespace pulga
