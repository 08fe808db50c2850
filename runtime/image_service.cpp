#include "runtime/image_service.h"

#include <sys/statvfs.h>

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

// The bytes of one upload; touched on the storage thread only, until handed to the importer.
struct SpoolFile {
  UniqueFd fd;
  uint64_t size = 0;
  Status failed;  // a write that went wrong: nothing after it counts
};

struct SpoolRules {
  std::string dir;
  uint64_t max_bytes;
  uint64_t reserve_bytes;
};

Error TooLargeUpload(uint64_t limit) {
  return Error{Code::kTooLarge, 0,
               "the archive is larger than " + HumanBytes(limit) + " (setting upload-bytes)"};
}

Status CheckDisk(int fd, const SpoolRules& rules, uint64_t wanted) {
  struct statvfs disk = {};
  if (fstatvfs(fd, &disk) != 0) return LastError("look at the disk");
  const uint64_t free_bytes = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
  if (free_bytes >= rules.reserve_bytes && free_bytes - rules.reserve_bytes >= wanted) {
    return OkStatus();
  }
  return Error{Code::kNoSpace, 0,
               "not enough space on the disk: " + HumanBytes(free_bytes) + " free, of which " +
                   HumanBytes(rules.reserve_bytes) + " are kept (setting reserve-bytes)"};
}

Status AppendToSpool(SpoolFile& file, const SpoolRules& rules, std::string_view bytes) {
  if (!file.fd.valid()) {
    auto opened = OpenUnnamedFile(rules.dir);
    // Without the path: it is the host's business, not the client's.
    if (!opened.ok()) return ErrnoError("create a spool file", opened.error().sys_errno);
    file.fd = std::move(opened).value();
  }
  if (file.size + bytes.size() > rules.max_bytes) return TooLargeUpload(rules.max_bytes);
  PULGA_RETURN_IF_ERROR(CheckDisk(file.fd.get(), rules, bytes.size()));
  const Status written = WriteAll(file.fd.get(), bytes);
  if (!written.ok()) return Prefix("store the upload", written.error());
  file.size += bytes.size();
  return OkStatus();
}

int64_t UnixMillis(const Clock& clock) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock.WallTime().time_since_epoch())
      .count();
}

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

struct ImageService::ImportRequest {
  std::shared_ptr<SpoolFile> file;
  std::optional<std::string> ref;
  AnyPlatform any_platform = AnyPlatform::kRefuse;
  Engine::Upload::Done done;
  std::weak_ptr<int> waiting;  // expired: nobody waits for the answer

  void Answer(ImportReport report) const {
    if (!waiting.expired()) done(std::move(report));
  }
};

class ImageService::UploadImpl final : public Engine::Upload {
 public:
  UploadImpl(ImageService& service, SpoolRules rules)
      : service_(service.self_), rules_(std::move(rules)) {}
  ~UploadImpl() override {
    if (finished_) return;
    if (const auto service = service_.lock()) --(*service)->uploads_;
  }

  void Write(std::string bytes, std::function<void(Status)> done) override {
    const auto service = service_.lock();
    if (!service) return;
    auto chunk = std::make_shared<std::string>(std::move(bytes));
    (*service)->parts_.storage.Run(
        [file = file_, rules = rules_, chunk] {
          if (file->failed.ok()) file->failed = AppendToSpool(*file, rules, *chunk);
          return file->failed;
        },
        [done = std::move(done), alive = std::weak_ptr<int>(alive_)](Status status) {
          if (!alive.expired()) done(std::move(status));
        });
  }

  void Finish(std::optional<std::string> ref, AnyPlatform any_platform, Done done) override {
    const auto service = service_.lock();
    if (!service || finished_) return;
    finished_ = true;
    auto request = std::make_shared<ImportRequest>();
    request->file = std::move(file_);
    request->ref = std::move(ref);
    request->any_platform = any_platform;
    request->done = std::move(done);
    request->waiting = alive_;
    // Behind the writes that are still under way.
    (*service)->parts_.storage.Run([] { return true; },
                                   [weak = service_, request](bool) {
                                     const auto alive = weak.lock();
                                     if (!alive) return;
                                     ImageService* const images = *alive;
                                     images->ops_.Add([images, request](OpQueue::Done next) {
                                       images->StartImport(request, std::move(next));
                                     });
                                   });
  }

 private:
  std::weak_ptr<ImageService*> service_;
  SpoolRules rules_;
  std::shared_ptr<SpoolFile> file_ = std::make_shared<SpoolFile>();
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  bool finished_ = false;
};

ImageService::ImageService(ImageParts parts, ImageLimits limits, Hooks hooks)
    : parts_(std::move(parts)), limits_(limits), hooks_(std::move(hooks)), ops_(parts_.loop) {}

ImageService::~ImageService() = default;

Result<std::unique_ptr<Engine::Upload>> ImageService::NewUpload(
    std::optional<uint64_t> content_length) {
  if (content_length && *content_length > limits_.upload_bytes) {
    return TooLargeUpload(limits_.upload_bytes);
  }
  if (uploads_ >= limits_.max_uploads) {
    return Error{Code::kUnavailable, 0,
                 std::to_string(uploads_) +
                     " images are being imported already: try again when one is done"};
  }
  ++uploads_;
  SpoolRules rules{parts_.data_dir, limits_.upload_bytes, limits_.reserve_bytes};
  return std::unique_ptr<Engine::Upload>(new UploadImpl(*this, std::move(rules)));
}

ImportLimits ImageService::LimitsForImport() const {
  ImportLimits limits;
  limits.image_bytes = std::min(limits.image_bytes, limits_.image_bytes);
  limits.layer_bytes = std::min(limits.layer_bytes, limits_.image_bytes);
  return limits;
}

void ImageService::StartImport(std::shared_ptr<ImportRequest> request, OpQueue::Done next) {
  ImportOptions options;
  options.ref = request->ref.value_or("");
  options.any_platform = request->any_platform;
  // A copy: the importer asks on its own thread. Nothing can change it while this operation runs.
  options.find_layer = [layers = parts_.catalog.Layers()](const LayerId& id) {
    const auto it = layers.find(id);
    return it == layers.end() ? std::nullopt : std::optional(it->second);
  };
  auto import = [&worker = parts_.worker, limits = LimitsForImport(), options,
                 file = request->file] {
    if (file->failed.ok() && file->fd.valid()) {
      return worker.Import(std::move(file->fd), options, limits);
    }
    ImportReport report;
    report.status = Error{Code::kInvalidArgument, 0, "the archive is empty"};
    report.reason = ImportReason::kNotAnArchive;
    if (!file->failed.ok()) {
      report.status = file->failed;
      report.reason = ReasonOf(file->failed.error().code);
    }
    return report;
  };
  parts_.spool.Run(std::move(import), [this, request, next](ImportReport report) {
    OnImported(request, std::move(report), next);
  });
}

void ImageService::OnImported(std::shared_ptr<ImportRequest> request, ImportReport report,
                              OpQueue::Done next) {
  if (!report.status.ok()) {
    LogInfo("import failed: " + Printable(report.status.error().message, 500));
    RemoveLayers(report.layers_created, [this, request, report, next] {
      --uploads_;
      request->Answer(report);
      next();
    });
    return;
  }
  const int64_t now = UnixMillis(parts_.clock);
  parts_.storage.Run([&store = parts_.store, images = report.images,
                      now] { return store.StoreImages(images, now); },
                     [this, request, report, next](Status stored) mutable {
                       if (stored.ok()) {
                         OnStored(request, std::move(report), next);
                         return;
                       }
                       report.status = Prefix("store the image", stored.error());
                       report.reason = ReasonOf(stored.error().code);
                       report.images.clear();
                       OnImported(request, std::move(report), next);
                     });
}

void ImageService::OnStored(std::shared_ptr<ImportRequest> request, ImportReport report,
                            OpQueue::Done next) {
  report.anything_new = false;
  for (ImageRecord& image : report.images) {
    report.anything_new = parts_.catalog.Add(image) || report.anything_new;
    LogInfo("imported " + (image.refs.empty() ? image.digest : Printable(image.refs.front())));
  }
  --uploads_;
  hooks_.changed();
  request->Answer(std::move(report));
  next();
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
    parts_.storage.Run([&store = parts_.store, ref = *ref] { return store.RemoveRef(ref); },
                       [this, ref = *ref, done](Status removed) {
                         if (removed.ok()) parts_.catalog.RemoveRef(ref);
                         done(std::move(removed));
                       });
    return;
  }
  const std::string user = hooks_.user_of(image->digest);
  if (!user.empty()) {
    return done(Error{Code::kAlreadyExists, 0,
                      "image " + Printable(name, 120) + " is in use by " + user +
                          ": remove or redeploy it first"});
  }
  RemoveRow(*image, std::move(done));
}

void ImageService::RemoveRow(const ImageRecord& image, std::function<void(Status)> done) {
  using Removed = Result<std::vector<LayerId>>;
  parts_.catalog.SetLeaving(image.digest, true);
  parts_.storage.Run(
      [&store = parts_.store, digest = image.digest] { return store.RemoveImages({digest}); },
      [this, digest = image.digest, done](Removed layers) {
        if (!layers.ok()) {
          parts_.catalog.SetLeaving(digest, false);
          return done(Prefix("remove image", layers.error()));
        }
        parts_.catalog.RemoveImage(digest);
        LogInfo("removed image " + digest);
        RemoveLayers(std::move(layers).value(), [done] { done(OkStatus()); });
      });
}

void ImageService::RemoveLayers(std::vector<LayerId> layers, std::function<void()> done) {
  const auto known = parts_.catalog.Layers();
  std::erase_if(layers, [&known](const LayerId& layer) { return known.contains(layer); });
  if (layers.empty()) return done();
  auto remove = [&worker = parts_.worker, layers] {
    for (const LayerId& layer : layers) {
      const Status removed = worker.Remove(layer);
      if (!removed.ok()) {
        LogWarning("layer " + layer.Hex() +
                   " stays until the next start: " + removed.error().message);
      }
    }
    return true;
  };
  parts_.spool.Run(std::move(remove), [done](bool) { done(); });
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
  RemoveLayers(plan.remove, std::move(done));
}

}  // namespace pulga
