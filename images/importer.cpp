#include "images/importer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/units.h"
#include "images/archive_index.h"
#include "images/archive_kind.h"
#include "images/archive_plan.h"
#include "images/image_ref.h"
#include "images/job_call.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

constexpr size_t kMaxIndexBytes = 4 << 20;

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

Result<uint64_t> SizeOf(int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return LastError("stat the upload");
  if (!S_ISREG(st.st_mode)) return Error{Code::kInternal, 0, "the upload is no regular file"};
  return static_cast<uint64_t>(st.st_size);
}

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return LastError("duplicate a descriptor");
  return copy;
}

class ArchiveFd final : public ArchiveFiles {
 public:
  ArchiveFd(int fd, ArchiveIndex index) : fd_(fd), index_(std::move(index)) {}
  const ArchiveIndex& index() const override { return index_; }
  Result<std::string> Read(const ArchiveMember& member, size_t limit) const override {
    if (member.size > limit) {
      return Error{Code::kTooLarge, 0,
                   "a JSON document of " + HumanBytes(member.size) + ", " + HumanBytes(limit) +
                       " is the limit"};
    }
    return ReadAt(fd_, static_cast<off_t>(member.offset), member.size);
  }

 private:
  int fd_;
  ArchiveIndex index_;
};

// One import from the first byte to the report.
class ImportRun {
 public:
  ImportRun(UnpackRunner& runner, const ImportLimits& limits, const std::string& scratch_dir,
            const ImportOptions& options)
      : runner_(runner), limits_(limits), scratch_dir_(scratch_dir), options_(options) {}
  Status Run(UniqueFd spool);
  ImportReport TakeReport(const Status& status);

 private:
  Status CheckRef();
  Status MakePlain(UniqueFd spool);
  Result<ArchiveIndex> Scan();
  Status NameImages(std::vector<PlannedImage>* images);
  Status UnpackImage(const PlannedImage& planned);
  Status MakeDurable();
  Result<LayerRecord> UnpackLayer(const PlannedLayer& layer, const std::vector<LayerId>& parents,
                                  const LayerId& id);
  Status RunLayerJob(UnpackJob job, std::optional<LayerResult>* result);
  void Report(ImportProgress::Step step, uint64_t layer_bytes);
  void WarnAbout(const LayerResult& result, const std::string& layer);
  Error Because(ImportReason reason, Error error) {
    reason_ = reason;
    return error;
  }

  UnpackRunner& runner_;
  const ImportLimits& limits_;
  const std::string& scratch_dir_;
  const ImportOptions& options_;
  std::optional<ImportReason> reason_;  // set where the error's code does not tell
  UniqueFd plain_;
  uint64_t plain_size_ = 0;
  ImportProgress progress_;
  std::map<LayerId, uint64_t> done_;
  ImportReport report_;
};

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

Status ImportRun::MakePlain(UniqueFd spool) {
  PULGA_ASSIGN_OR_RETURN(plain_size_, SizeOf(spool.get()));
  PULGA_ASSIGN_OR_RETURN(ArchiveKind kind, DetectArchive(spool.get(), plain_size_));
  if (kind == ArchiveKind::kGzip || kind == ArchiveKind::kZstd) {
    Report(ImportProgress::Step::kDecompress, plain_size_);
    PULGA_ASSIGN_OR_RETURN(plain_, OpenUnnamedFile(scratch_dir_));
    UnpackOrder request;
    request.kind = UnpackKind::kDecompress;
    request.max_bytes = limits_.archive_bytes;
    UnpackJob job;
    job.kind = request.kind;
    job.request = request.Encode();
    job.input = std::move(spool);
    PULGA_ASSIGN_OR_RETURN(job.output, Duplicate(plain_.get()));
    PULGA_RETURN_IF_ERROR(RunJob(runner_, std::move(job)));
    PULGA_ASSIGN_OR_RETURN(plain_size_, SizeOf(plain_.get()));
    PULGA_ASSIGN_OR_RETURN(kind, DetectArchive(plain_.get(), plain_size_));
  } else {
    plain_ = std::move(spool);
  }
  if (kind == ArchiveKind::kTar) return OkStatus();
  return Because(ImportReason::kNotAnArchive,
                 {Code::kInvalidArgument, 0, NotAnArchive(kind, plain_size_)});
}

Result<ArchiveIndex> ImportRun::Scan() {
  Report(ImportProgress::Step::kScan, plain_size_);
  PULGA_ASSIGN_OR_RETURN(const UniqueFd output, OpenUnnamedFile(scratch_dir_));
  UnpackOrder request;
  request.kind = UnpackKind::kScan;
  request.max_entries = limits_.archive_members;
  request.max_bytes = kMaxIndexBytes;
  UnpackJob job;
  job.kind = request.kind;
  job.request = request.Encode();
  PULGA_ASSIGN_OR_RETURN(job.input, Duplicate(plain_.get()));
  PULGA_ASSIGN_OR_RETURN(job.output, Duplicate(output.get()));
  PULGA_RETURN_IF_ERROR(RunJob(runner_, std::move(job)));
  if (lseek(output.get(), 0, SEEK_SET) != 0) return LastError("rewind the archive's index");
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadFd(output.get(), kMaxIndexBytes));
  return ArchiveIndex::Decode(bytes, plain_size_);
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

void ImportRun::WarnAbout(const LayerResult& result, const std::string& layer) {
  const auto warn = [&](uint64_t count, const char* what) {
    if (count == 0) return;
    report_.warnings.push_back(layer + ": " + std::to_string(count) + " " + what);
  };
  warn(result.devices_skipped, "device nodes skipped");
  warn(result.ids_squashed, "entries with an owner outside 0..65535 given to 65534");
  warn(result.xattrs_dropped, "extended attributes outside user.* dropped");
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

Result<LayerRecord> ImportRun::UnpackLayer(const PlannedLayer& layer,
                                           const std::vector<LayerId>& parents, const LayerId& id) {
  LayerRecord record{layer.diff_id, id, 0, false};
  UnpackOrder request;
  request.kind = UnpackKind::kUnpackLayer;
  request.offset = layer.member.offset;
  request.size = layer.member.size;
  request.blob_digest = layer.blob_digest;
  request.diff_id = layer.diff_id;
  request.max_entries = limits_.layer_entries;
  request.max_bytes = limits_.layer_bytes;
  request.max_stream = limits_.layer_stream_bytes;
  UnpackJob job;
  job.kind = request.kind;
  job.parents = parents;
  job.target = id;
  job.request = request.Encode();
  PULGA_ASSIGN_OR_RETURN(job.input, Duplicate(plain_.get()));
  std::optional<LayerResult> result;
  const Status ran = RunLayerJob(std::move(job), &result);
  const bool somebody_else = !ran.ok() && ran.error().code == Code::kAlreadyExists;
  if (!ran.ok() && !somebody_else) {
    // What the unpacker lacks is the board's fault, not the image's.
    if (ran.error().code == Code::kUnsupported) reason_ = ImportReason::kInternal;
    return ran.error();
  }
  if (somebody_else) {
    record.reused = true;
    if (options_.find_layer) record.size_bytes = options_.find_layer(id).value_or(0);
    return record;
  }
  report_.layers_created.push_back(id);
  if (!result) return Error{Code::kInternal, 0, "the unpacker's result is damaged"};
  record.size_bytes = result->bytes;
  WarnAbout(*result, "layer sha256:" + layer.diff_id.substr(0, 12));
  return record;
}

Status ImportRun::UnpackImage(const PlannedImage& planned) {
  ImageRecord image;
  image.refs = planned.refs;
  image.digest = planned.digest;
  image.platform = planned.platform;
  image.config = planned.config;
  image.config_json = planned.config_json;
  std::vector<LayerId> parents;
  std::optional<LayerId> parent;
  for (size_t i = 0; i < planned.layers.size(); ++i) {
    const PlannedLayer& layer = planned.layers[i];
    const LayerId id = NextChainId(parent, layer.diff_id);
    ++progress_.layer;
    Report(ImportProgress::Step::kLayer, layer.member.size);
    std::optional<uint64_t> known;
    if (const auto it = done_.find(id); it != done_.end()) known = it->second;
    if (!known && options_.find_layer) known = options_.find_layer(id);
    LayerRecord record{layer.diff_id, id, known.value_or(0), true};
    if (!known) {
      auto unpacked = UnpackLayer(layer, parents, id);
      if (!unpacked.ok()) {
        return Prefix(
            "layer " + std::to_string(i + 1) + "/" + std::to_string(planned.layers.size()),
            unpacked.error());
      }
      record = *unpacked;
    }
    done_[id] = record.size_bytes;
    image.size_bytes += record.size_bytes;
    if (image.size_bytes > limits_.image_bytes) {
      return Error{Code::kTooLarge, 0,
                   "the image holds more than " + HumanBytes(limits_.image_bytes)};
    }
    image.layers.push_back(std::move(record));
    parents.push_back(id);
    parent = id;
  }
  report_.images.push_back(std::move(image));
  return OkStatus();
}

// Once for all layers: no row of the database names one of them before this returns, and what a
// crash leaves without a row is swept.
Status ImportRun::MakeDurable() {
  plain_.Reset();  // not worth writing out
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir, OpenFile(scratch_dir_, O_RDONLY | O_DIRECTORY));
  if (PULGA_SYS(syncfs, dir.get()) != 0) return LastError("sync the layers");
  return OkStatus();
}

Status ImportRun::Run(UniqueFd spool) {
  PULGA_RETURN_IF_ERROR(CheckRef());
  PULGA_RETURN_IF_ERROR(MakePlain(std::move(spool)));
  std::vector<PlannedImage> images;
  {
    PULGA_ASSIGN_OR_RETURN(ArchiveIndex index, Scan());
    const ArchiveFd files(plain_.get(), std::move(index));
    PlanOptions plan{DetectHostAbility(), options_.any_platform, limits_.images};
    PULGA_ASSIGN_OR_RETURN(images, PlanImport(files, plan, &report_.warnings));
  }
  PULGA_RETURN_IF_ERROR(NameImages(&images));
  for (const PlannedImage& image : images) {
    progress_.layers += static_cast<uint32_t>(image.layers.size());
  }
  for (const PlannedImage& image : images) PULGA_RETURN_IF_ERROR(UnpackImage(image));
  PULGA_RETURN_IF_ERROR(MakeDurable());
  Report(ImportProgress::Step::kDone, 0);
  return OkStatus();
}

ImportReport ImportRun::TakeReport(const Status& status) {
  report_.status = status;
  if (!status.ok()) {
    report_.reason = reason_.value_or(ReasonOf(status.error().code));
    report_.images.clear();
  }
  return std::move(report_);
}

}  // namespace

Importer::Importer(UnpackRunner& runner, ImportLimits limits, std::string scratch_dir)
    : runner_(runner), limits_(limits), scratch_dir_(std::move(scratch_dir)) {}

ImportReport Importer::Import(UniqueFd spool, const ImportOptions& options) {
  ImportRun run(runner_, limits_, scratch_dir_, options);
  return run.TakeReport(run.Run(std::move(spool)));
}

Result<UniqueFd> Importer::RunListing(UnpackKind kind, const std::vector<LayerId>& layers) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd output, OpenUnnamedFile(scratch_dir_));
  UnpackOrder request;
  request.kind = kind;
  UnpackJob job;
  job.kind = kind;
  job.parents = layers;
  job.request = request.Encode();
  PULGA_ASSIGN_OR_RETURN(job.output, Duplicate(output.get()));
  PULGA_RETURN_IF_ERROR(RunJob(runner_, std::move(job)));
  if (lseek(output.get(), 0, SEEK_SET) != 0) return LastError("rewind the listing");
  return output;
}

Result<UniqueFd> Importer::Tree(const std::vector<LayerId>& layers) {
  return RunListing(UnpackKind::kList, layers);
}

Result<UniqueFd> Importer::Sums(const std::vector<LayerId>& layers) {
  return RunListing(UnpackKind::kSums, layers);
}

Status Importer::Remove(const LayerId& layer) {
  UnpackOrder request;
  request.kind = UnpackKind::kRemove;
  UnpackJob job;
  job.kind = request.kind;
  job.target = layer;
  job.request = request.Encode();
  return RunJob(runner_, std::move(job));
}

}  // namespace pulga
