// Importer: from an archive (docker save of any year, OCI archive; plain, gzip or zstd), while it
// arrives, to published layers and image records. Blocks: a thread of its own. Unprivileged: it
// reads only the archive's JSON documents; everything else is done by the confined unpacker it asks
// to run. On failure: nothing but the layers listed in `layers_created` is left behind; the caller
// removes those no image refers to (Remove), or keeps them for the next try.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "images/image.h"
#include "images/import_stop.h"
#include "images/layer_claims.h"
#include "images/unpack_runner.h"

namespace pulga {

class MemberFeed;

struct ImportLimits {
  uint64_t archive_bytes = uint64_t{8} << 30;       // the archive once decompressed
  uint64_t layer_bytes = uint64_t{4} << 30;         // regular files of one layer, apparent size
  uint64_t layer_stream_bytes = uint64_t{8} << 30;  // one layer's uncompressed tar
  uint64_t archive_members = 65536;
  uint64_t layer_entries = 1'000'000;
  uint32_t images = 64;                       // in one archive
  uint64_t image_bytes = uint64_t{16} << 30;  // sum of one image's layers; all that one import
                                              // unpacks is four times that at most
  uint64_t reserve_bytes = 0;                 // of the disk, left free
};

// Why an import failed, for the API's error mapping; the number is the HTTP status it stands for.
enum class ImportReason : int {
  kNone = 0,
  kBadRef = 400,        // the name to give is no image name
  kDenied = 403,        // by a registry
  kNoSuchImage = 404,   // in its registry
  kAmbiguous = 409,     // one name for an archive of several images
  kLayerGone = 412,     // left out as known, but not stored
  kTooLarge = 413,      // a limit of ImportLimits
  kNotAnArchive = 415,  // neither a tar nor a gzip or zstd of one
  kBadImage = 422,      // damaged, inconsistent, hostile, or not for this board
  kRegistry = 502,      // could not be reached, or gave no useful answer
  kHelper = 503,        // the unpacker or the fetcher could not run
  kNoSpace = 507,       // disk or memory used up
  kInternal = 500,      // the kernel failed us otherwise
};

enum class AnyPlatform { kRefuse, kStore };
// Layers that an archive does not hold: refused, or as good when they are stored.
enum class AbsentLayers { kRefuse, kIfStored };

struct ImportProgress {
  enum class Step { kReceive, kLayer, kDone };
  Step step = Step::kReceive;
  uint32_t layer = 0;        // kLayer: 1-based, of all different layers
  uint32_t layers = 0;       // 0 until a plan is made
  uint64_t layer_bytes = 0;  // kLayer: of its blob, which is looked up or unpacked now
};

struct ImportOptions {
  std::string ref;  // the name to give; empty keeps the archive's own names
  std::string owner = kDefaultOwner;
  AnyPlatform any_platform = AnyPlatform::kRefuse;
  AbsentLayers absent = AbsentLayers::kRefuse;
  LayerClaims* claims = nullptr;                        // without: no layer exists
  std::function<bool()> wanted = {};                    // false: given up; may be empty
  std::shared_ptr<ImportStop> stop = nullptr;           // ends its jobs; may be nullptr
  std::function<void(const ImportProgress&)> progress;  // may be empty
};

struct ImportReport {
  Status status;  // ok: every image below is complete
  ImportReason reason = ImportReason::kNone;
  std::vector<ImageRecord> images;    // empty on failure
  std::vector<std::string> warnings;  // for people, bounded
  // Published by this call, on failure too; an image of the report needs not each of them.
  std::vector<LayerId> layers_created;
  bool anything_new = true;  // set by runtime/: false when all of it was stored already
};

class Importer {
 public:
  // `runner` must outlive the importer. Unnamed temporary files are made in `scratch_dir`, which
  // lies on the file system of the layers: it is synced before a successful import returns.
  Importer(UnpackRunner& runner, ImportLimits limits, std::string scratch_dir);

  // An archive: a pipe through which it arrives, or a file, read to its end. `confirm` as in
  // UploadOptions.
  ImportReport Import(UniqueFd input, const ImportOptions& options,
                      std::function<Status()> confirm = {});
  ImportReport Import(MemberFeed& feed, const ImportOptions& options);

  // The flattened tree of `layers` (base first) in the golden formats of docs/images.md, as an
  // unnamed file positioned at its start.
  Result<UniqueFd> Tree(const std::vector<LayerId>& layers);
  Result<UniqueFd> Sums(const std::vector<LayerId>& layers);
  // Deletes a published layer and its record; nobody may use it any more.
  Status Remove(const LayerId& layer);

 private:
  Result<UniqueFd> RunListing(UnpackKind kind, const std::vector<LayerId>& layers);

  UnpackRunner& runner_;
  ImportLimits limits_;
  std::string scratch_dir_;
};

}  // namespace pulga
