#include "images/archive_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "base/units.h"
#include "base/unpack_job.h"
#include "images/image_config.h"
#include "images/image_ref.h"
#include "images/layer_path.h"

namespace pulga {
namespace {

constexpr int kMaxIndexDepth = 4;
constexpr size_t kMaxManifests = 256;  // present in the archive, of all platforms
constexpr size_t kMaxWarnings = 32;
// Of what one plan reads: indexes may name the same documents many times.
constexpr uint64_t kMaxReadBytes = uint64_t{64} << 20;
constexpr uint32_t kMaxReads = 4096;

Error Bad(std::string message) { return {Code::kInvalidArgument, 0, std::move(message)}; }

std::string BlobName(const Digest& digest) {
  const bool sha256 = digest.algorithm == DigestAlgorithm::kSha256;
  return std::string("blobs/") + (sha256 ? "sha256/" : "sha512/") + digest.hex;
}

// "blobs/sha256/<hex>", "<hex>.json" and "sha256:<hex>" promise what their content hashes to.
std::optional<Digest> PromisedDigest(std::string_view member) {
  const auto [parent, leaf] = SplitPath(member);
  if (auto digest = ParseDigest(leaf)) return digest;
  std::string_view hex = leaf;
  if (hex.ends_with(".json")) hex.remove_suffix(5);
  if (parent.ends_with("blobs/sha512")) return ParseDigest("sha512:" + std::string(hex));
  if (parent.ends_with("blobs/sha256") || leaf.ends_with(".json")) {
    return ParseDigest("sha256:" + std::string(hex));
  }
  return std::nullopt;
}

std::string HashOf(DigestAlgorithm algorithm, std::string_view bytes) {
  Hasher hasher(algorithm);
  hasher.Update(bytes);
  return hasher.Finish().ToString();
}

Status CheckDigest(std::string_view name, std::string_view bytes, const Digest& expected) {
  const std::string found = HashOf(expected.algorithm, bytes);
  if (found == expected.ToString()) return OkStatus();
  return Bad(Printable(name, 200) + " is " + found + ", expected " + expected.ToString());
}

// A named group of manifests: one image for several platforms.
struct Candidates {
  std::string name;
  std::vector<Descriptor> manifests;  // whose documents are in the archive
  std::vector<Platform> missing;      // named by an index, but not in the archive
};

class Planner {
 public:
  // `awaited`: nullptr, or where to name a document that is still to come.
  Planner(const ArchiveFiles& files, const PlanOptions& options, std::vector<std::string>* warnings,
          std::string* awaited)
      : files_(files), options_(options), warnings_(warnings), awaited_(awaited) {}
  Result<std::vector<PlannedImage>> Plan();

 private:
  Result<std::vector<PlannedImage>> PlanOci();
  Result<std::vector<PlannedImage>> PlanSaved();
  // Every document is read here: counted, and with a look whether all this is still wanted.
  Result<std::string> ReadDocument(const ArchiveMember& member, size_t limit);
  Result<std::string> ReadBlob(const Descriptor& descriptor, size_t limit);
  Status Collect(const Descriptor& descriptor, int depth, Candidates* out);
  Result<PlannedImage> ChooseManifest(const Candidates& candidates);
  Result<PlannedImage> PlanManifest(const Descriptor& descriptor);
  Result<PlannedImage> PlanSavedImage(const SavedImage& saved);
  Status FillFromConfig(std::string config_json, PlannedImage* image,
                        std::vector<std::string>* diff_ids) const;
  Status CheckPlatform(const PlannedImage& image) const;
  Status AddRef(std::string_view name, PlannedImage* image);
  Status AddNamesOfSaved(std::vector<PlannedImage>* images);
  // The error for a document that is not there.
  Error Absent(const std::string& name, std::string message) const;

  const ArchiveFiles& files_;
  const PlanOptions& options_;
  std::vector<std::string>* warnings_;
  std::string* awaited_;
  std::set<uint64_t> read_;      // where in the archive the documents lie
  uint64_t document_bytes_ = 0;  // of them
  uint64_t read_bytes_ = 0;      // of all readings
  uint32_t reads_ = 0;
  size_t names_ = 0;  // given to images
};

Result<std::string> Planner::ReadDocument(const ArchiveMember& member, size_t limit) {
  if (options_.wanted && !options_.wanted()) {
    return Error{Code::kUnavailable, 0, "the import was given up"};
  }
  if (member.size > limit) {
    return Error{Code::kTooLarge, 0,
                 "a JSON document of " + HumanBytes(member.size) + ", " + HumanBytes(limit) +
                     " is the limit"};
  }
  if (read_.insert(member.offset).second) document_bytes_ += member.size;
  read_bytes_ += member.size;
  if (document_bytes_ > kMaxDocumentsBytes) {
    return Error{Code::kTooLarge, 0,
                 "the JSON documents of the archive are larger than " +
                     HumanBytes(kMaxDocumentsBytes) + " together"};
  }
  if (++reads_ > kMaxReads || read_bytes_ > kMaxReadBytes) {
    return Error{Code::kTooLarge, 0, "the archive names its JSON documents too many times"};
  }
  return files_.Read(member);
}

Error Planner::Absent(const std::string& name, std::string message) const {
  if (awaited_ == nullptr) return {Code::kNotFound, 0, std::move(message)};
  *awaited_ = name;
  return {Code::kUnavailable, 0, std::move(message)};
}

Status CheckLayerCount(size_t layers, size_t diff_ids) {
  if (layers != diff_ids) {
    return Bad("the image lists " + std::to_string(layers) + " layers, its configuration " +
               std::to_string(diff_ids));
  }
  if (layers == 0) return Bad("the image has no layers");
  if (layers > kMaxLayers) {
    return Error{Code::kTooLarge, 0,
                 "the image has " + std::to_string(layers) + " layers, " +
                     std::to_string(kMaxLayers) + " is the limit"};
  }
  return OkStatus();
}

// One tag on two images would make the answer depend on their order.
Status CheckNames(const std::vector<PlannedImage>& images) {
  std::set<std::string> seen;
  for (const PlannedImage& image : images) {
    for (const std::string& ref : image.refs) {
      if (!seen.insert(ref).second) {
        return Bad("two images of this archive are called " + FamiliarName(ref));
      }
    }
  }
  return OkStatus();
}

// The same for an index: one name may stand for several platforms, not for two images of one.
Status CheckIndexNames(const std::vector<Descriptor>& manifests) {
  std::map<std::pair<std::string, std::string>, Digest> seen;
  for (const Descriptor& one : manifests) {
    const bool elsewhere = one.platform && one.platform->os != "linux";
    if (one.name.empty() || elsewhere) continue;
    const std::string platform = one.platform ? PlatformName(*one.platform) : "";
    const auto [known, added] = seen.try_emplace({one.name, platform}, one.digest);
    if (!added && !(known->second == one.digest)) {
      return Bad("two images of this archive are called " + Printable(FamiliarName(one.name), 200));
    }
  }
  return OkStatus();
}

// The same image under several names is one image.
std::vector<PlannedImage> MergeEqual(std::vector<PlannedImage> images) {
  std::vector<PlannedImage> out;
  for (PlannedImage& image : images) {
    const auto same = std::find_if(out.begin(), out.end(), [&](const PlannedImage& known) {
      return known.digest == image.digest;
    });
    if (same == out.end()) {
      out.push_back(std::move(image));
      continue;
    }
    for (std::string& ref : image.refs) {
      if (std::count(same->refs.begin(), same->refs.end(), ref) == 0) {
        same->refs.push_back(std::move(ref));
      }
    }
  }
  return out;
}

Result<std::vector<PlannedImage>> Planner::Plan() {
  const bool has_layout = files_.index().FindFile("oci-layout") != nullptr &&
                          files_.index().FindFile("index.json") != nullptr;
  const bool has_saved = files_.index().FindFile("manifest.json") != nullptr;
  if (!has_layout && !has_saved) {
    if (files_.index().HasOldImages()) {
      return Bad(
          "this archive is in the format of Docker before 1.10 (a directory per layer with a "
          "`json`, no manifest.json), whose images carry no digests to check them by; `docker "
          "load` it into a Docker from 1.10 on that still takes it (the latest do not), and "
          "`docker save` it there");
    }
    return Bad(
        "no image in this archive: what `docker save` or an OCI tool writes is expected, with a "
        "manifest.json or an oci-layout and index.json at its top");
  }
  auto images = has_layout ? PlanOci() : PlanSaved();
  if (has_layout && has_saved && (!images.ok() || images->empty())) {
    const bool hopeless = !images.ok() && images.error().code != Code::kUnsupported &&
                          images.error().code != Code::kNotFound;
    if (hopeless) return images;
    images = PlanSaved();
  }
  if (!images.ok()) return images;
  if (images->empty()) return Bad("the archive names no image");
  auto merged = MergeEqual(std::move(*images));
  PULGA_RETURN_IF_ERROR(CheckNames(merged));
  if (merged.size() > options_.max_images) {
    return Error{Code::kTooLarge, 0,
                 "the archive holds more than " + std::to_string(options_.max_images) + " images"};
  }
  return merged;
}

Result<std::string> Planner::ReadBlob(const Descriptor& descriptor, size_t limit) {
  const std::string name = BlobName(descriptor.digest);
  const ArchiveMember* member = files_.index().FindFile(name);
  if (member == nullptr) return Absent(name, name + " is not in the archive");
  if (member->size != descriptor.size) {
    return Bad(name + " has " + std::to_string(member->size) + " bytes, expected " +
               std::to_string(descriptor.size));
  }
  PULGA_ASSIGN_OR_RETURN(std::string bytes, ReadDocument(*member, limit));
  PULGA_RETURN_IF_ERROR(CheckDigest(name, bytes, descriptor.digest));
  return bytes;
}

// Follows indexes down to the manifests that are there; what is absent is somebody else's platform.
Status Planner::Collect(const Descriptor& descriptor, int depth, Candidates* out) {
  const std::string name = BlobName(descriptor.digest);
  if (files_.index().FindFile(name) == nullptr) {
    if (awaited_ != nullptr) return Absent(name, "still to come");
    if (out->missing.size() < kMaxManifests) {
      out->missing.push_back(descriptor.platform.value_or(Platform()));
    }
    return OkStatus();
  }
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadBlob(descriptor, kMaxManifestBytes));
  PULGA_ASSIGN_OR_RETURN(const OciDocument document, ParseOciDocument(bytes));
  if (!document.is_index) {
    if (out->manifests.size() >= kMaxManifests) return Bad("too many manifests");
    out->manifests.push_back(descriptor);
    return OkStatus();
  }
  if (depth >= kMaxIndexDepth) return Bad("indexes are nested too deep");
  for (const Descriptor& next : document.manifests) {
    PULGA_RETURN_IF_ERROR(Collect(next, depth + 1, out));
  }
  return OkStatus();
}

Status Planner::FillFromConfig(std::string config_json, PlannedImage* image,
                               std::vector<std::string>* diff_ids) const {
  PULGA_ASSIGN_OR_RETURN(ParsedConfig parsed, ParseImageConfig(config_json));
  image->digest = HashOf(DigestAlgorithm::kSha256, config_json);
  image->config_json = std::move(config_json);
  image->platform = std::move(parsed.platform);
  image->config = std::move(parsed.config);
  // Very old images say nothing; the engines of their time took that for "here".
  if (image->platform.os.empty()) image->platform.os = "linux";
  if (image->platform.architecture.empty()) image->platform = options_.host.platform;
  *diff_ids = std::move(parsed.diff_ids);
  return OkStatus();
}

Status Planner::CheckPlatform(const PlannedImage& image) const {
  if (options_.any_platform == AnyPlatform::kStore || PlatformRank(options_.host, image.platform)) {
    return OkStatus();
  }
  return WrongPlatform(image.platform, options_.host);
}

Status Planner::AddRef(std::string_view name, PlannedImage* image) {
  if (name.empty()) return OkStatus();
  auto ref = NormalizeImageRef(name);
  if (!ref.ok()) {
    if (warnings_->size() < kMaxWarnings) warnings_->push_back("ignored: " + ref.error().message);
    return OkStatus();
  }
  if (std::find(image->refs.begin(), image->refs.end(), *ref) != image->refs.end()) {
    return OkStatus();
  }
  if (++names_ > kMaxNames) {
    return Error{Code::kTooLarge, 0,
                 "the archive gives its images more than " + std::to_string(kMaxNames) +
                     " names: save it with fewer tags"};
  }
  image->refs.push_back(std::move(*ref));
  return OkStatus();
}

Result<PlannedImage> Planner::PlanManifest(const Descriptor& descriptor) {
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadBlob(descriptor, kMaxManifestBytes));
  PULGA_ASSIGN_OR_RETURN(const OciDocument manifest, ParseOciDocument(bytes));
  PULGA_ASSIGN_OR_RETURN(std::string config, ReadBlob(manifest.config, kMaxConfigBytes));
  PlannedImage image;
  std::vector<std::string> diff_ids;
  PULGA_RETURN_IF_ERROR(FillFromConfig(std::move(config), &image, &diff_ids));
  if (image.platform.variant.empty() && descriptor.platform) {
    image.platform.variant = descriptor.platform->variant;
  }
  PULGA_RETURN_IF_ERROR(CheckPlatform(image));
  PULGA_RETURN_IF_ERROR(CheckLayerCount(manifest.layers.size(), diff_ids.size()));
  for (size_t i = 0; i < diff_ids.size(); ++i) {
    const Descriptor& layer = manifest.layers[i];
    const std::string name = BlobName(layer.digest);
    PlannedLayer planned{name, std::nullopt, layer.size, layer.digest.ToString(), diff_ids[i]};
    const auto member = FindPlanned(files_.index(), planned);
    if (member.ok()) {
      planned.member = *member;
    } else if (options_.layers == PlanLayers::kMustBeThere ||
               member.error().code != Code::kNotFound) {
      return Bad("layer " + std::to_string(i + 1) + ": " + member.error().message);
    }
    image.layers.push_back(std::move(planned));
  }
  return image;
}

// The platform's image this board runs best; with kStore any other when there is none.
Result<PlannedImage> Planner::ChooseManifest(const Candidates& candidates) {
  std::optional<Error> first_error;
  std::optional<PlannedImage> best;
  int best_rank = 0;
  for (const Descriptor& manifest : candidates.manifests) {
    auto image = PlanManifest(manifest);
    if (!image.ok()) {
      // A damaged image is told before a foreign one.
      const bool foreign = image.error().code == Code::kUnsupported;
      if (!first_error || (!foreign && first_error->code == Code::kUnsupported)) {
        first_error = image.error();
      }
      continue;
    }
    const int rank = PlatformRank(options_.host, image->platform).value_or(1000);
    if (!best || rank < best_rank) {
      best = std::move(*image);
      best_rank = rank;
    }
  }
  if (best) return std::move(*best);
  if (first_error) return *first_error;
  for (const Platform& platform : candidates.missing) {
    if (PlatformRank(options_.host, platform)) {
      return Error{Code::kNotFound, 0,
                   "the archive names an image for " + PlatformName(platform) +
                       ", but does not hold it; save it with all its content"};
    }
  }
  if (!candidates.missing.empty()) {
    return WrongPlatform(candidates.missing.front(), options_.host);
  }
  return Error{Code::kNotFound, 0, "the archive's index.json names no image"};
}

Result<std::vector<PlannedImage>> Planner::PlanOci() {
  PULGA_ASSIGN_OR_RETURN(const std::string layout,
                         ReadDocument(*files_.index().FindFile("oci-layout"), 4096));
  PULGA_RETURN_IF_ERROR(CheckOciLayout(layout));
  PULGA_ASSIGN_OR_RETURN(const std::string bytes,
                         ReadDocument(*files_.index().FindFile("index.json"), kMaxManifestBytes));
  PULGA_ASSIGN_OR_RETURN(const OciDocument index, ParseOciDocument(bytes));
  if (!index.is_index) return Bad("index.json must be an index");
  PULGA_RETURN_IF_ERROR(CheckIndexNames(index.manifests));
  std::vector<Candidates> groups;  // by name; what has none is one image for several platforms
  for (const Descriptor& descriptor : index.manifests) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Candidates& known) {
      return known.name == descriptor.name;
    });
    if (group == groups.end()) {
      if (groups.size() > options_.max_images) break;
      group = groups.insert(groups.end(), Candidates{descriptor.name, {}, {}});
    }
    PULGA_RETURN_IF_ERROR(Collect(descriptor, 0, &*group));
  }
  std::vector<PlannedImage> images;
  for (const Candidates& group : groups) {
    PULGA_ASSIGN_OR_RETURN(PlannedImage image, ChooseManifest(group));
    const bool bare_tag = group.name.find_first_of(":/") == std::string::npos;
    if (!bare_tag) PULGA_RETURN_IF_ERROR(AddRef(group.name, &image));
    images.push_back(std::move(image));
  }
  PULGA_RETURN_IF_ERROR(AddNamesOfSaved(&images));
  return images;
}

// A bare tag in index.json says too little; docker's manifest.json beside it knows the name.
Status Planner::AddNamesOfSaved(std::vector<PlannedImage>* images) {
  const ArchiveMember* member = files_.index().FindFile("manifest.json");
  const bool unnamed = std::any_of(images->begin(), images->end(),
                                   [](const PlannedImage& image) { return image.refs.empty(); });
  if (member == nullptr || !unnamed) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadDocument(*member, kMaxManifestJsonBytes));
  PULGA_ASSIGN_OR_RETURN(const auto saved_images, ParseSavedImages(bytes));
  for (const SavedImage& saved : saved_images) {
    const auto promised = PromisedDigest(saved.config);
    for (PlannedImage& image : *images) {
      if (!promised || promised->ToString() != image.digest) continue;
      for (const std::string& tag : saved.repo_tags) {
        PULGA_RETURN_IF_ERROR(AddRef(tag, &image));
      }
    }
  }
  return OkStatus();
}

Result<PlannedImage> Planner::PlanSavedImage(const SavedImage& saved) {
  auto member = files_.index().FindLayer(saved.config);
  if (!member.ok()) {
    const bool may_come = awaited_ != nullptr && member.error().code == Code::kNotFound;
    const Error error =
        may_come ? Absent(CleanPath(saved.config).value_or(""), "still to come") : member.error();
    return Prefix("manifest.json: Config", error);
  }
  PULGA_ASSIGN_OR_RETURN(std::string config, ReadDocument(*member, kMaxConfigBytes));
  if (const auto promised = PromisedDigest(saved.config)) {
    PULGA_RETURN_IF_ERROR(CheckDigest(saved.config, config, *promised));
  }
  PlannedImage image;
  std::vector<std::string> diff_ids;
  PULGA_RETURN_IF_ERROR(FillFromConfig(std::move(config), &image, &diff_ids));
  PULGA_RETURN_IF_ERROR(CheckPlatform(image));
  PULGA_RETURN_IF_ERROR(CheckLayerCount(saved.layers.size(), diff_ids.size()));
  for (size_t i = 0; i < diff_ids.size(); ++i) {
    const auto promised = PromisedDigest(saved.layers[i]);
    PlannedLayer planned{saved.layers[i], std::nullopt, std::nullopt,
                         promised ? promised->ToString() : "", diff_ids[i]};
    const auto layer = FindPlanned(files_.index(), planned);
    if (layer.ok()) {
      planned.member = *layer;
    } else if (options_.layers == PlanLayers::kMustBeThere) {
      return Prefix("layer " + std::to_string(i + 1), layer.error());
    }
    image.layers.push_back(std::move(planned));
  }
  for (const std::string& tag : saved.repo_tags) {
    PULGA_RETURN_IF_ERROR(AddRef(tag, &image));
  }
  return image;
}

Result<std::vector<PlannedImage>> Planner::PlanSaved() {
  const ArchiveMember* member = files_.index().FindFile("manifest.json");
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadDocument(*member, kMaxManifestJsonBytes));
  PULGA_ASSIGN_OR_RETURN(const auto saved_images, ParseSavedImages(bytes));
  if (saved_images.size() > options_.max_images) {
    return Error{Code::kTooLarge, 0,
                 "the archive holds more than " + std::to_string(options_.max_images) + " images"};
  }
  std::vector<PlannedImage> images;
  for (const SavedImage& saved : saved_images) {
    PULGA_ASSIGN_OR_RETURN(PlannedImage image, PlanSavedImage(saved));
    images.push_back(std::move(image));
  }
  return images;
}

}  // namespace

Result<std::vector<PlannedImage>> PlanImport(const ArchiveFiles& files, const PlanOptions& options,
                                             std::vector<std::string>* warnings) {
  return Planner(files, options, warnings, nullptr).Plan();
}

Result<std::vector<PlannedImage>> PlanEarly(const ArchiveFiles& files, PlanOptions options,
                                            std::string* awaited) {
  awaited->clear();
  options.layers = PlanLayers::kMayCome;
  std::vector<std::string> unheard;  // they are told by the plan that counts
  return Planner(files, options, &unheard, awaited).Plan();
}

Result<ArchiveMember> FindPlanned(const ArchiveIndex& index, const PlannedLayer& layer) {
  PULGA_ASSIGN_OR_RETURN(ArchiveMember member, index.FindLayer(layer.name));
  if (!layer.size || *layer.size == member.size) return member;
  return Error{Code::kInvalidArgument, 0,
               layer.name + " has " + std::to_string(member.size) + " bytes, expected " +
                   std::to_string(*layer.size)};
}

}  // namespace pulga
