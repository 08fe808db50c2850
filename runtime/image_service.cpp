#include "runtime/image_service.h"

#include <algorithm>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "runtime/recovery.h"

namespace pulga {
namespace {

ImportReason ReasonOf(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return ImportReason::kBadRef;
    case Code::kTooLarge:
      return ImportReason::kTooLarge;
    case Code::kNoSpace:
      return ImportReason::kNoSpace;
    case Code::kUnavailable:
      return ImportReason::kHelper;
    default:
      return ImportReason::kInternal;
  }
}

}  // namespace

ImageService::ImageService(ImageParts parts, ImageLimits limits, Hooks hooks)
    : parts_(std::move(parts)),
      limits_(limits),
      hooks_(std::move(hooks)),
      ops_(parts_.loop),
      table_(parts_.catalog),
      imports_(parts_.loop, table_,
               {[&worker = parts_.worker](UniqueFd input, const ImportOptions& options,
                                          const ImportLimits& import, auto confirm) {
                  return worker.Import(std::move(input), options, import, std::move(confirm));
                },
                [this](ImportReport report, auto done) { Store(std::move(report), done); },
                [this](ImportReport report, auto done) { MakeRoom(std::move(report), done); },
                [this](std::vector<LayerId> layers, auto done) {
                  RemoveLayers(std::move(layers), done);
                }}) {}

ImageService::~ImageService() { parts_.loop.Cancel(sweep_timer_); }

UploadLimits ImageService::LimitsForUpload() const {
  ImportLimits limits;
  limits.image_bytes = std::min(limits.image_bytes, limits_.image_bytes);
  limits.layer_bytes = std::min(limits.layer_bytes, limits_.image_bytes);
  limits.reserve_bytes = limits_.reserve_bytes;
  return {limits_.upload_bytes, limits_.max_uploads, limits};
}

void ImageService::Store(ImportReport report, std::function<void(ImportReport)> done) {
  auto shared = std::make_shared<ImportReport>(std::move(report));
  ops_.Add([this, shared, done = std::move(done)](OpQueue::Done next) {
    const int64_t now = UnixMillis(parts_.clock);
    parts_.storage.Run(
        [&store = parts_.store, shared, now] { return store.StoreImages(shared->images, now); },
        [this, shared, done, next](const Status& stored) {
          if (stored.ok()) {
            Show(shared.get());
            Collect({});
          } else {
            shared->status = Prefix("store the image", stored.error());
            shared->reason = ReasonOf(stored.error().code);
            shared->images.clear();
          }
          done(std::move(*shared));
          next();
        });
  });
}

void ImageService::Show(ImportReport* report) {
  report->anything_new = false;
  for (ImageRecord& image : report->images) {
    std::string().swap(image.config_json);
    image.last_used_unix_ms = UnixMillis(parts_.clock);
    report->anything_new = parts_.catalog.Add(image) || report->anything_new;
    LogInfo("imported " + (image.refs.empty() ? image.digest : Printable(image.refs.front())));
  }
  hooks_.changed();
}

void ImageService::View(const std::string& name, TreeView view,
                        std::function<void(Result<UniqueFd>)> done) {
  ops_.Add([this, name, view, done = std::move(done)](OpQueue::Done next) {
    const auto image = parts_.catalog.Find(name);
    if (!image.ok() || !image->trouble.empty()) {
      done(image.ok() ? Error{Code::kUnavailable, 0, name + ": " + image->trouble} : image.error());
      next();
      return;
    }
    std::vector<LayerId> layers;
    for (const LayerRecord& layer : image->layers) layers.push_back(layer.chain_id);
    auto list = [&worker = parts_.worker, layers, view] {
      return std::make_shared<Result<UniqueFd>>(worker.List(layers, view));
    };
    parts_.spool.Run(std::move(list), [done, next](std::shared_ptr<Result<UniqueFd>> file) {
      done(std::move(*file));
      next();
    });
  });
}

void ImageService::Remove(const std::string& name, std::function<void(Status)> done) {
  ops_.Add([this, name, done = std::move(done)](OpQueue::Done next) {
    RemoveNow(name, [done, next](Status status) {
      done(std::move(status));
      next();
    });
  });
}

void ImageService::RemoveNow(const std::string& name, std::function<void(Status)> done) {
  const auto image = parts_.catalog.Find(name);
  if (!image.ok()) return done(image.error());
  const auto ref = NormalizeImageRef(name);
  const bool by_ref =
      ref.ok() && std::find(image->refs.begin(), image->refs.end(), *ref) != image->refs.end();
  if (by_ref && image->refs.size() > 1) {  // only the name goes
    const OwnedImage owned{image->owner, *ref};
    parts_.storage.Run([&store = parts_.store, owned] { return store.RemoveRef(owned); },
                       [this, owned, done](Status removed) {
                         if (removed.ok()) parts_.catalog.RemoveRef(owned.name);
                         done(std::move(removed));
                       });
    return;
  }
  const std::string user = UserOf(image->digest);
  if (!user.empty()) {
    return done(Error{Code::kAlreadyExists, 0,
                      "image " + Printable(name, 120) + " is in use by " + user +
                          ": remove or redeploy it first"});
  }
  RemoveRows({*image}, [done](const Result<PruneReport>& removed) {
    done(removed.ok() ? OkStatus() : Status(removed.error()));
  });
}

void ImageService::RemoveRows(std::vector<ImageRecord> images,
                              std::function<void(Result<PruneReport>)> done) {
  std::vector<OwnedImage> digests;
  for (const ImageRecord& image : images) {
    digests.push_back({image.owner, image.digest});
    parts_.catalog.SetLeaving(image.digest, true);
  }
  parts_.storage.Run([&store = parts_.store, digests] { return store.RemoveImages(digests); },
                     [this, images = std::move(images), done](Result<std::vector<LayerId>> layers) {
                       PruneReport report;
                       std::map<LayerId, uint64_t> sizes;
                       for (const ImageRecord& image : images) {
                         parts_.catalog.SetLeaving(image.digest, false);
                         for (const LayerRecord& layer : image.layers)
                           sizes[layer.chain_id] = DiskBytes(layer);
                       }
                       if (!layers.ok()) return done(Prefix("remove image", layers.error()));
                       for (const ImageRecord& image : images) {
                         parts_.catalog.RemoveImage(image.digest);
                         LogInfo("removed image " + image.digest);
                       }
                       report.layers = layers->size();
                       for (const LayerId& layer : *layers) report.freed_bytes += sizes[layer];
                       report.images = images;
                       RemoveLayers(std::move(layers).value(), [report, done] { done(report); });
                     });
}

std::string ImageService::UserOf(const std::string& digest) const {
  const std::string user = hooks_.user_of(digest);
  return user.empty() && parts_.catalog.pinned(digest) ? "an export" : user;
}

void ImageService::ClaimUnneeded(std::vector<LayerId>& layers) {
  const auto known = parts_.catalog.Layers();
  std::erase_if(layers, [&](const LayerId& layer) {
    return known.contains(layer) || !table_.BeginRemoval(layer);
  });
}

void ImageService::RemoveLayers(std::vector<LayerId> layers, std::function<void()> done) {
  ClaimUnneeded(layers);
  if (layers.empty()) return done();
  auto remove = [&worker = parts_.worker, layers] {
    bool all = true;
    for (const LayerId& layer : layers) {
      const Status removed = worker.Remove(layer);
      if (removed.ok()) continue;
      LogWarning("layer " + layer.Hex() + " stays for now: " + removed.error().message);
      all = false;
    }
    return all;
  };
  parts_.spool.Run(std::move(remove), [this, layers, done](bool all) {
    for (const LayerId& layer : layers) table_.EndRemoval(layer);
    if (all) {
      sweep_pause_ = kFirstSweepPause;
    } else {
      SweepLater();
    }
    done();
  });
}

void ImageService::SweepLater() {
  if (sweep_timer_ != 0) return;
  sweep_timer_ = parts_.loop.CallAfter(sweep_pause_, [this] {
    sweep_timer_ = 0;
    Sweep([](const Status&) {});  // without a launcher: the next one's coming sweeps
  });
  sweep_pause_ = std::min(sweep_pause_ * 2, kLongestSweepPause);
}

void ImageService::Sweep(std::function<void(Status)> done) {
  ops_.Add([this, done = std::move(done)](OpQueue::Done next) {
    parts_.sandbox.ListLayers([this, done, next](Result<std::vector<LayerId>> on_disk) {
      if (!on_disk.ok()) {
        done(on_disk.error());
        return next();
      }
      ApplySweep(*on_disk, [done, next] {
        done(OkStatus());
        next();
      });
    });
  });
}

void ImageService::ApplySweep(const std::vector<LayerId>& on_disk, std::function<void()> done) {
  if (stopping_) return done();  // a removal would wait for a loop that has ended
  const SweepPlan plan = PlanSweep(on_disk, parts_.catalog.Layers());
  if (!plan.missing.empty()) {
    LogError(std::to_string(plan.missing.size()) +
             " layers are missing on disk; the images with them must be imported again");
    parts_.catalog.MarkMissing(plan.missing);
    hooks_.changed();
  }
  if (!plan.remove.empty()) {
    LogInfo(std::to_string(plan.remove.size()) + " layers without an image are removed");
  }
  RemoveLayers(plan.remove, [this, done = std::move(done)] { SweepRecords(done); });
}

void ImageService::SweepRecords(const std::function<void()>& done) {
  auto list = [&worker = parts_.worker] { return worker.ListRecords(); };
  parts_.spool.Run(std::move(list), [this, done](Result<std::vector<LayerId>> listed) {
    if (!listed.ok()) {
      LogWarning(listed.error().message);
      return done();
    }
    std::vector<LayerId> strays = std::move(listed).value();
    ClaimUnneeded(strays);
    if (strays.empty()) return done();
    auto remove = [&worker = parts_.worker, strays] { return worker.RemoveRecords(strays); };
    parts_.spool.Run(std::move(remove), [this, strays, done](const Status& removed) {
      for (const LayerId& layer : strays) table_.EndRemoval(layer);
      if (!removed.ok()) LogWarning(removed.error().message);
      done();
    });
  });
}

}  // namespace pulga
