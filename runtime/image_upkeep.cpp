// ImageService's upkeep: verify, export, prune, and collection when the disk fills.
#include <sys/statvfs.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "images/archive_export.h"
#include "images/image_ref.h"
#include "runtime/image_export.h"
#include "runtime/image_service.h"

namespace pulga {
namespace {

// Who has just imported an image is about to deploy it.
constexpr std::chrono::minutes kJustUsed{10};

Result<DiskUse> LookAtDisk(const std::string& dir) {
  struct statvfs disk = {};
  if (statvfs(dir.c_str(), &disk) != 0) return LastError("look at the disk");
  const auto bytes = [&disk](fsblkcnt_t blocks) { return uint64_t{blocks} * disk.f_frsize; };
  return DiskUse{bytes(disk.f_blocks - disk.f_bfree), bytes(disk.f_bavail)};
}

}  // namespace

void ImageService::Verify(const std::string& name, std::function<void(Result<VerifyReport>)> done) {
  ops_.Add([this, name, done = std::move(done)](OpQueue::Done next) {
    const auto image = parts_.catalog.Find(name);
    if (!image.ok() || !image->trouble.empty()) {
      done(image.ok() ? Error{Code::kUnavailable, 0, name + ": " + image->trouble} : image.error());
      return next();
    }
    auto verify = [&worker = parts_.worker, image = *image] { return worker.Verify(image); };
    parts_.spool.Run(std::move(verify), [done, next, pin = parts_.catalog.PinImage(image->digest)](
                                            Result<VerifyReport> report) {
      if (report.ok() && !report->intact()) {
        LogError("image " + *pin + " is not as it was imported");
      }
      done(std::move(report));
      next();
    });
  });
}

Result<std::unique_ptr<Engine::Download>> ImageService::Export(const std::string& name) {
  PULGA_ASSIGN_OR_RETURN(const ImageRecord image, parts_.catalog.Find(name));
  if (!image.trouble.empty()) return Error{Code::kUnavailable, 0, name + ": " + image.trouble};
  // Asked for by name, it takes that name along; by digest, none, as with docker save.
  const auto ref = NormalizeImageRef(name);
  const bool named =
      ref.ok() && std::find(image.refs.begin(), image.refs.end(), *ref) != image.refs.end();
  PULGA_ASSIGN_OR_RETURN(ExportPlan plan, PlanExport(image, named ? *ref : ""));
  auto config = [&store = parts_.store, owned = OwnedImage{image.owner, image.digest}] {
    return store.ConfigOf(owned);
  };
  return std::unique_ptr<Engine::Download>(
      std::make_unique<ImageExport>(ExportParts{parts_.loop, parts_.storage, parts_.sandbox,
                                                RecordStore(parts_.data_dir), std::move(config)},
                                    std::move(plan), parts_.catalog.PinImage(image.digest)));
}

void ImageService::Prune(PruneScope scope, std::function<void(Result<PruneReport>)> done) {
  ops_.Add([this, scope, done = std::move(done)](OpQueue::Done next) {
    std::vector<ImageRecord> images;
    for (const ImageRecord& image : parts_.catalog.List()) {
      if (scope == PruneScope::kUntagged && !image.refs.empty()) continue;
      if (UserOf(image.digest).empty()) images.push_back(image);
    }
    const auto finish = [done, next](Result<PruneReport> report) {
      done(std::move(report));
      next();
    };
    if (images.empty()) return finish(PruneReport{});
    RemoveRows(std::move(images), finish);
  });
}

CollectionCandidates ImageService::Candidates() const {
  const auto now = parts_.clock.WallTime().time_since_epoch();
  const auto just_used = [now](int64_t unix_ms) {
    return now - std::chrono::milliseconds(unix_ms) < kJustUsed;
  };
  CollectionCandidates out;
  for (const ImageRecord& image : parts_.catalog.List()) {
    CollectionCandidate candidate;
    candidate.digest = image.digest;
    candidate.last_used_unix_ms = image.last_used_unix_ms;
    candidate.in_use = just_used(image.last_used_unix_ms) || !UserOf(image.digest).empty();
    for (const LayerRecord& layer : image.layers) {
      candidate.layers[layer.chain_id] = DiskBytes(layer);
    }
    out.images.push_back(std::move(candidate));
  }
  if (!hooks_.uploads) return out;
  for (const UploadView& view : hooks_.uploads()) {
    const bool busy = view.busy || view.state != UploadState::kReceiving;
    out.uploads.push_back({view.upload.id, busy || just_used(view.upload.touched_ms),
                           view.upload.touched_ms, view.upload.offset});
  }
  return out;
}

void ImageService::Collect(std::function<void()> done) {
  ops_.Add([this, done = std::move(done)](OpQueue::Done next) {
    const auto finish = [done, next](uint64_t) {
      if (done) done();
      next();
    };
    parts_.storage.Run([dir = parts_.data_dir] { return LookAtDisk(dir); },
                       [this, finish](const Result<DiskUse>& disk) {
                         if (disk.ok()) return CollectNow(*disk, finish);
                         LogWarning(disk.error().message);
                         finish(0);
                       });
  });
}

void ImageService::MakeRoom(ImportReport report, std::function<void(ImportReport)> done) {
  auto shared = std::make_shared<ImportReport>(std::move(report));
  ops_.Add([this, shared, done = std::move(done)](OpQueue::Done next) {
    const auto finish = [shared, done, next](uint64_t freed) {
      if (freed > 0) {
        const Error& why = shared->status.error();
        shared->status = Error{why.code, why.sys_errno,
                               why.message + "; " + HumanBytes(freed) +
                                   " of what nobody used were removed meanwhile: try again"};
      }
      done(std::move(*shared));
      next();
    };
    parts_.storage.Run([dir = parts_.data_dir] { return LookAtDisk(dir); },
                       [this, finish](const Result<DiskUse>& disk) {
                         if (!disk.ok()) return finish(0);
                         // What the import had taken is free again by now, and was not enough: for
                         // it the disk was full.
                         CollectNow({disk->used_bytes + disk->available_bytes, 0}, finish);
                       });
  });
}

void ImageService::CollectNow(const DiskUse& disk, std::function<void(uint64_t)> done) {
  const CollectionPlan plan = PlanCollection(disk, limits_.marks, Candidates());
  // Once for each state of things, not once a minute.
  if (!plan.reason.empty() && plan.reason != last_collection_) LogWarning(plan.reason);
  last_collection_ = plan.reason;
  for (const std::string& id : plan.uploads) hooks_.drop_upload(id);
  uint64_t freed = plan.uploads.empty() ? 0 : plan.freed_bytes;
  std::vector<ImageRecord> images;
  for (const std::string& digest : plan.digests) {
    const auto image = parts_.catalog.ByDigest(digest);
    if (image.ok()) images.push_back(*image);
  }
  if (images.empty()) return done(freed);
  RemoveRows(std::move(images), [done, freed](const Result<PruneReport>& report) {
    if (!report.ok()) LogWarning("collect images: " + report.error().message);
    if (report.ok()) {
      LogInfo("collected " + std::to_string(report->images.size()) + " images, " +
              HumanBytes(report->freed_bytes) + " freed");
    }
    done(report.ok() ? std::max(freed, report->freed_bytes) : freed);
  });
}

}  // namespace pulga
