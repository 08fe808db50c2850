#include "images/import_run.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "images/job_call.h"
#include "images/record_store.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

constexpr uint64_t kImagesWorth = 4;  // all that one import unpacks, in largest images
constexpr int kMaxEarlyPlans = 64;
constexpr uint64_t kMaxEarlyBytes = 4 * kMaxDocumentsBytes;  // which early plans may read

ImportReason ReasonOf(Code code) {
  switch (code) {
    case Code::kTooLarge:
      return ImportReason::kTooLarge;
    case Code::kNoSpace:
      return ImportReason::kNoSpace;
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kUnsupported:
      return ImportReason::kBadImage;
    case Code::kUnavailable:
    case Code::kTimeout:
      return ImportReason::kHelper;
    case Code::kPermission:
    case Code::kIo:
    case Code::kInternal:
      return ImportReason::kInternal;
  }
  return ImportReason::kInternal;
}

// A helper that reads what another one wrote must not be able to change it.
Result<UniqueFd> ReopenReadOnly(int fd) {
  UniqueFd copy(open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC));
  if (!copy.valid()) return LastError("open the archive again");
  return copy;
}

Error AtLayer(size_t index, const PlannedImage& image, const Error& error) {
  return Prefix("layer " + std::to_string(index + 1) + "/" + std::to_string(image.layers.size()),
                error);
}

// What was hashed as it came is not hashed again.
Status CheckBlob(const PlannedLayer& layer, const ArchiveMember& blob) {
  if (blob.sha256.empty() || !layer.blob_digest.starts_with("sha256:")) return OkStatus();
  const std::string found = "sha256:" + blob.sha256;
  if (found == layer.blob_digest) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "the layer's blob is " + found + ", expected " + layer.blob_digest};
}

}  // namespace

// The plain file's documents by name.
class ImportRun::Files final : public ArchiveFiles {
 public:
  Files(int fd, const ArchiveIndex& index) : fd_(fd), index_(index) {}
  const ArchiveIndex& index() const override { return index_; }
  uint64_t bytes_read() const { return bytes_read_; }
  Result<std::string> Read(const ArchiveMember& member) const override {
    bytes_read_ += member.size;
    return ReadAt(fd_, static_cast<off_t>(member.offset), member.size);
  }

 private:
  int fd_;
  const ArchiveIndex& index_;
  mutable uint64_t bytes_read_ = 0;
};

LayerId ImportRun::NextId(const Chain& chain, const PlannedLayer& layer) const {
  return NextChainId(
      chain.layers.empty() ? ChainRootOf(options_.owner) : std::optional(chain.layers.back()),
      layer.diff_id);
}

ImportRun::ImportRun(UnpackRunner& runner, const ImportLimits& limits,
                     const std::string& scratch_dir, const ImportOptions& options)
    : runner_(runner), limits_(limits), scratch_dir_(scratch_dir), options_(options) {
  awaited_ = {"manifest.json", "index.json", "oci-layout"};
}

Error ImportRun::Because(ImportReason reason, Error error) {
  reason_ = reason;
  return error;
}

Status ImportRun::CheckRef() {
  if (options_.ref.empty()) return OkStatus();
  const auto ref = ParseImageRef(options_.ref);
  if (!ref.ok()) return Because(ImportReason::kBadRef, ref.error());
  if (ref->digest.empty()) return OkStatus();
  return Because(ImportReason::kBadRef,
                 {Code::kInvalidArgument, 0, "an image can not be given a name with a digest"});
}

void ImportRun::Report(ImportProgress::Step step, uint64_t layer_bytes) {
  progress_.step = step;
  progress_.layer_bytes = layer_bytes;
  if (options_.progress) options_.progress(progress_);
}

// --- while it arrives

Status ImportRun::Receive(MemberFeed& feed) {
  plain_fd_ = feed.plain_fd();
  Report(ImportProgress::Step::kReceive, 0);
  while (true) {
    auto next = feed.Next();
    if (!next.ok() && next.error().code == Code::kUnsupported) {
      return Because(ImportReason::kNotAnArchive, next.error());
    }
    if (!next.ok()) return next.error();
    if (!next->has_value()) return feed.Finish();
    NamedMember& member = **next;
    const bool was_awaited = awaited_.contains(member.name);
    index_.Add(std::move(member.name), std::move(member.member));
    if (was_awaited) PULGA_RETURN_IF_ERROR(PlanAhead(feed));
    PULGA_RETURN_IF_ERROR(UnpackAhead());
  }
}

// Nothing that goes wrong here is told: the plan that counts comes when everything is there.
Status ImportRun::PlanAhead(MemberFeed& feed) {
  if (!ahead_.empty() || ++early_plans_ > kMaxEarlyPlans || early_bytes_ > kMaxEarlyBytes) {
    return OkStatus();
  }
  const Files files(plain_fd_, index_);
  std::string missing;
  const PlanOptions options{DetectHostAbility(), options_.any_platform, limits_.images,
                            PlanLayers::kMayCome, options_.wanted};
  std::vector<std::string> warnings;  // told by the plan that counts
  // A registry brings the documents of one platform, and no more: none of them is waited for.
  auto planned = feed.BringsWhatIsWanted() ? PlanImport(files, options, &warnings)
                                           : PlanEarly(files, options, &missing);
  early_bytes_ += files.bytes_read();
  if (!missing.empty()) awaited_.insert(missing);
  if (!planned.ok()) return OkStatus();
  ahead_ = std::move(*planned);
  for (PlannedImage& image : ahead_) std::string().swap(image.config_json);  // read anew at the end
  return AskFor(feed);
}

Status ImportRun::AskFor(MemberFeed& feed) {
  std::set<LayerId> all;
  std::vector<PlannedLayer> wanted;
  for (const PlannedImage& image : ahead_) {
    Chain chain;
    for (const PlannedLayer& layer : image.layers) {
      const LayerId id = NextId(chain, layer);
      chain.layers.push_back(id);
      if (!all.insert(id).second || FindPlanned(index_, layer).ok()) continue;
      if (options_.claims != nullptr && options_.claims->Find(id)) continue;
      wanted.push_back(layer);
    }
  }
  progress_.layers = static_cast<uint32_t>(all.size());
  return feed.Want(wanted);
}

// As far as blobs are there.
Status ImportRun::UnpackAhead() {
  while (ahead_image_ < ahead_.size()) {
    const PlannedImage& image = ahead_[ahead_image_];
    if (ahead_layer_ == image.layers.size()) {
      ++ahead_image_;
      ahead_layer_ = 0;
      ahead_chain_ = Chain();
      continue;
    }
    const PlannedLayer& layer = image.layers[ahead_layer_];
    const LayerId id = NextId(ahead_chain_, layer);
    const auto blob = FindPlanned(index_, layer);
    if (!blob.ok() && !done_.contains(id)) {
      const auto known = options_.claims != nullptr ? options_.claims->Find(id) : std::nullopt;
      if (!known) return OkStatus();
    }
    const auto provided = Provide(layer, blob.ok() ? &*blob : nullptr, ahead_chain_, id);
    if (!provided.ok()) return AtLayer(ahead_layer_, image, provided.error());
    const Status fits = Append(id, *provided, &ahead_chain_);
    if (!fits.ok()) return AtLayer(ahead_layer_, image, fits.error());
    ++ahead_layer_;
  }
  return OkStatus();
}

// --- when everything is there

Result<std::vector<PlannedImage>> ImportRun::PlanAll(const MemberFeed& feed) {
  const bool may_be_absent =
      feed.BringsWhatIsWanted() || options_.absent == AbsentLayers::kIfStored;
  const PlanOptions options{DetectHostAbility(), options_.any_platform, limits_.images,
                            may_be_absent ? PlanLayers::kMayCome : PlanLayers::kMustBeThere,
                            options_.wanted};
  PULGA_ASSIGN_OR_RETURN(auto images,
                         PlanImport(Files(plain_fd_, index_), options, &report_.warnings));
  PULGA_RETURN_IF_ERROR(NameImages(&images));
  std::set<LayerId> all;
  for (const PlannedImage& image : images) {
    Chain chain;
    for (const PlannedLayer& layer : image.layers) {
      chain.layers.push_back(NextId(chain, layer));
      all.insert(chain.layers.back());
    }
  }
  progress_.layers = static_cast<uint32_t>(all.size());
  return images;
}

Status ImportRun::NameImages(std::vector<PlannedImage>* images) {
  if (options_.ref.empty()) return OkStatus();
  if (images->size() > 1) {
    return Because(ImportReason::kAmbiguous,
                   {Code::kAlreadyExists, 0,
                    "the archive holds " + std::to_string(images->size()) +
                        " images, one name does not fit them all; import it without a name"});
  }
  PULGA_ASSIGN_OR_RETURN(std::string ref, NormalizeImageRef(options_.ref));
  images->front().refs = {std::move(ref)};
  return OkStatus();
}

Status ImportRun::UnpackImage(PlannedImage planned) {
  ImageRecord image;
  image.owner = options_.owner;
  image.refs = planned.refs;
  image.digest = planned.digest;
  image.platform = planned.platform;
  image.config = std::move(planned.config);
  image.config_json = std::move(planned.config_json);
  image.config_bytes = image.config_json.size();
  Chain chain;
  for (size_t i = 0; i < planned.layers.size(); ++i) {
    const PlannedLayer& layer = planned.layers[i];
    const LayerId id = NextId(chain, layer);
    const auto blob = FindPlanned(index_, layer);
    auto record = Provide(layer, blob.ok() ? &*blob : nullptr, chain, id);
    if (!record.ok()) return AtLayer(i, planned, record.error());
    const Status fits = Append(id, *record, &chain);
    if (!fits.ok()) return AtLayer(i, planned, fits.error());
    image.layers.push_back(std::move(*record));
  }
  image.size_bytes = chain.bytes;
  report_.images.push_back(std::move(image));
  return OkStatus();
}

// --- layers

Status ImportRun::Append(const LayerId& id, const LayerRecord& layer, Chain* chain) const {
  const uint64_t left = limits_.image_bytes - std::min(limits_.image_bytes, chain->bytes);
  if (layer.size_bytes > left) {
    return Error{Code::kTooLarge, 0,
                 "the image holds more than " + HumanBytes(limits_.image_bytes)};
  }
  chain->layers.push_back(id);
  chain->bytes += layer.size_bytes;
  return OkStatus();
}

uint64_t ImportRun::BytesLeft(const Chain& chain) const {
  const uint64_t all = kImagesWorth * std::min(limits_.image_bytes, UINT64_MAX / kImagesWorth);
  const auto left_of = [](uint64_t limit, uint64_t used) { return limit - std::min(limit, used); };
  return std::min({limits_.layer_bytes, left_of(limits_.image_bytes, chain.bytes),
                   left_of(all, unpacked_bytes_)});
}

Result<LayerRecord> ImportRun::Provide(const PlannedLayer& layer, const ArchiveMember* blob,
                                       const Chain& chain, const LayerId& id) {
  if (blob != nullptr) PULGA_RETURN_IF_ERROR(CheckBlob(layer, *blob));
  if (const auto it = done_.find(id); it != done_.end()) return it->second;
  ++progress_.layer;
  Report(ImportProgress::Step::kLayer, blob != nullptr ? blob->size : 0);
  if (options_.claims != nullptr) {
    auto known = blob != nullptr ? options_.claims->FindOrMake(id) : options_.claims->Find(id);
    if (known) {
      known->reused = true;
      return done_[id] = std::move(*known);
    }
  }
  if (blob == nullptr && options_.absent == AbsentLayers::kIfStored) {
    return Because(ImportReason::kLayerGone,
                   {Code::kNotFound, 0,
                    layer.name + " was left out, but is not stored here on these parents: send "
                                 "the whole archive"});
  }
  if (blob == nullptr) return Error{Code::kInvalidArgument, 0, layer.name + " is missing"};
  auto made = UnpackLayer(layer, *blob, chain, id);
  if (options_.claims != nullptr) options_.claims->Made(id, made.ok() ? &*made : nullptr);
  if (!made.ok()) return made.error();
  return done_[id] = std::move(*made);
}

Result<LayerRecord> ImportRun::UnpackLayer(const PlannedLayer& layer, const ArchiveMember& blob,
                                           const Chain& chain, const LayerId& id) {
  UnpackOrder order;
  order.kind = UnpackKind::kUnpackLayer;
  order.offset = blob.offset;
  order.size = blob.size;
  if (blob.sha256.empty()) order.blob_digest = layer.blob_digest;
  if (blob.sha256 != layer.diff_id) order.diff_id = layer.diff_id;
  order.max_entries = limits_.layer_entries;
  order.max_bytes = BytesLeft(chain);
  order.max_stream = limits_.layer_stream_bytes;
  order.reserve_bytes = limits_.reserve_bytes;
  UnpackJob job;
  job.kind = order.kind;
  job.parents = chain.layers;
  job.target = id;
  job.request = order.Encode();
  PULGA_ASSIGN_OR_RETURN(job.input, ReopenReadOnly(plain_fd_));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd layer_record, OpenUnnamedFile(scratch_dir_));
  job.output = UniqueFd(fcntl(layer_record.get(), F_DUPFD_CLOEXEC, 3));
  if (!job.output.valid()) return LastError("duplicate a descriptor");
  std::optional<LayerResult> result;
  const Status ran = RunLayerJob(std::move(job), &result);
  if (!ran.ok()) {
    // What the unpacker lacks is the board's fault, not the image's.
    if (ran.error().code == Code::kUnsupported) reason_ = ImportReason::kInternal;
    Error error = ran.error();
    if (error.code == Code::kTooLarge && BytesLeft(chain) < limits_.layer_bytes) {
      error.message += " (one image may hold " + HumanBytes(limits_.image_bytes) + ")";
    }
    return error;
  }
  report_.layers_created.push_back(id);
  if (!result) return Error{Code::kInternal, 0, "the unpacker's result is damaged"};
  unpacked_bytes_ += result->bytes;
  LayerRecord record;
  record.diff_id = layer.diff_id;
  record.chain_id = id;
  record.size_bytes = result->bytes;
  record.stream_bytes = result->stream_bytes;
  record.disk_bytes = result->disk_bytes;
  PULGA_ASSIGN_OR_RETURN(record.record_bytes,
                         RecordStore(scratch_dir_).Store(id, layer_record.get()));
  WarnAbout(*result, "layer sha256:" + layer.diff_id.substr(0, 12));
  return record;
}

Status ImportRun::RunLayerJob(UnpackJob job, std::optional<LayerResult>* result) {
  PULGA_ASSIGN_OR_RETURN(const auto call, JobCall::Start(runner_, std::move(job)));
  while (true) {
    const auto event = call->Next();
    if (!event.ok() || !event->has_value()) break;
    if ((*event)->kind == JobEventKind::kLayerResult) {
      *result = LayerResult::Decode((*event)->payload);
    }
  }
  return call->Finish();
}

void ImportRun::WarnAbout(const LayerResult& result, const std::string& layer) {
  const auto warn = [&](uint64_t count, const char* what) {
    if (count == 0) return;
    layer_warnings_.push_back(layer + ": " + std::to_string(count) + " " + what);
  };
  warn(result.devices_skipped, "device nodes skipped");
  warn(result.ids_squashed,
       "entries with an owner that has no id here given to 65534 (0 where that has none)");
  warn(result.xattrs_dropped, "extended attributes outside user.* dropped");
}

// Once for all layers: no row of the database names one of them before this returns, and what a
// crash leaves without a row is swept.
Status ImportRun::MakeDurable(MemberFeed& feed) {
  feed.Drop();
  if (report_.layers_created.empty()) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir, OpenFile(scratch_dir_, O_RDONLY | O_DIRECTORY));
  if (PULGA_SYS(syncfs, dir.get()) != 0) return LastError("sync the layers");
  return OkStatus();
}

Status ImportRun::Run(MemberFeed& feed) {
  PULGA_RETURN_IF_ERROR(Receive(feed));
  PULGA_ASSIGN_OR_RETURN(auto images, PlanAll(feed));
  for (PlannedImage& image : images) PULGA_RETURN_IF_ERROR(UnpackImage(std::move(image)));
  PULGA_RETURN_IF_ERROR(MakeDurable(feed));
  Report(ImportProgress::Step::kDone, 0);
  return OkStatus();
}

ImportReport ImportRun::TakeReport(const Status& status) {
  report_.status = status;
  report_.warnings.insert(report_.warnings.end(), layer_warnings_.begin(), layer_warnings_.end());
  if (!status.ok()) {
    report_.reason = reason_.value_or(ReasonOf(status.error().code));
    report_.images.clear();
  }
  return std::move(report_);
}

}  // namespace pulga
