// Which images to take out of an archive, and where their layers lie in it. Reads the archive's
// JSON documents, each bounded and checked against its digest; writes nothing.
// Order as containerd has it: the OCI layout where there is one that leads to an image for this
// board, else docker's manifest.json. Source: images/README.md.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/archive_index.h"
#include "images/image.h"
#include "images/importer.h"
#include "images/manifest.h"
#include "images/platform_choice.h"

namespace pulga {

// The plain archive, its members by name.
class ArchiveFiles {
 public:
  virtual ~ArchiveFiles() = default;
  virtual const ArchiveIndex& index() const = 0;
  // A whole member. The plan asks for none that is larger than its kind of document may be.
  virtual Result<std::string> Read(const ArchiveMember& member) const = 0;
};

struct PlannedLayer {
  std::string name;  // of its member, in the archive's words
  std::optional<ArchiveMember>
      member;                    // nullopt: not there, which only PlanLayers::kMayCome allows
  std::optional<uint64_t> size;  // as the manifest promises
  std::string blob_digest;       // "sha256:..." of the stored bytes where the archive promises one
  std::string diff_id;           // 64 hex digits
};

struct PlannedImage {
  std::vector<std::string> refs;  // normalised
  std::string config_json;
  std::string digest;  // "sha256:..." of config_json
  Platform platform;
  ImageConfig config;
  std::vector<PlannedLayer> layers;
};

// Of one archive: all its documents that are read, each counted once, and the images' names.
inline constexpr uint64_t kMaxDocumentsBytes = uint64_t{8} << 20;
inline constexpr size_t kMaxNames = 256;

enum class PlanLayers { kMustBeThere, kMayCome };

struct PlanOptions {
  HostAbility host;
  AnyPlatform any_platform = AnyPlatform::kRefuse;
  uint32_t max_images = 64;
  PlanLayers layers = PlanLayers::kMustBeThere;
  std::function<bool()> wanted = {};  // false: give up, with kUnavailable; asked between documents
};

// At least one image. kUnsupported names both platforms when none is for this board.
Result<std::vector<PlannedImage>> PlanImport(const ArchiveFiles& files, const PlanOptions& options,
                                             std::vector<std::string>* warnings);
// The same of an archive that is still arriving: layers may be missing. While documents are, this
// is kUnavailable and `awaited` the name of one of them; any other error may pass as well once the
// rest is there.
Result<std::vector<PlannedImage>> PlanEarly(const ArchiveFiles& files, PlanOptions options,
                                            std::string* awaited);
// Where a planned layer lies now. kNotFound, or kInvalidArgument for one of another size.
Result<ArchiveMember> FindPlanned(const ArchiveIndex& index, const PlannedLayer& layer);

}  // namespace pulga
