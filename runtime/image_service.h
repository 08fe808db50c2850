// ImageService: uploads, imports, views and removals of images. Loop thread; bytes are written by
// the storage thread, archives imported by the spool thread. Imports, views and removals run one
// after the other. An image exists once its row is committed; layers published for an import that
// failed are removed again, or by the sweep of the next start.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/work_queue.h"
#include "runtime/engine.h"
#include "runtime/image_catalog.h"
#include "runtime/image_collection.h"
#include "runtime/image_worker.h"
#include "runtime/import_service.h"
#include "runtime/layer_table.h"
#include "runtime/op_queue.h"
#include "runtime/resumable_uploads.h"
#include "runtime/state_store.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct ImageLimits {
  uint64_t upload_bytes = 8ULL << 30;
  uint64_t image_bytes = 16ULL << 30;
  uint64_t reserve_bytes = 32ULL << 20;
  uint32_t max_uploads = 4;
  CollectionMarks marks;
};

// What the daemon built; all of it outlives the service.
struct ImageParts {
  EventLoop& loop;
  const Clock& clock;
  WorkQueue& storage;
  WorkQueue& spool;
  StateStore& store;  // used on `storage` only
  ImageCatalog& catalog;
  Sandbox& sandbox;
  ImageWorker& worker;  // used on `spool` only
  std::string data_dir;
};

class ImageService {
 public:
  struct Hooks {
    // Who needs this image (a text for people), or "".
    std::function<std::string(const std::string& digest)> user_of;
    // The catalog changed: functions may be broken, or whole again.
    std::function<void()> changed;
    // Archives that have come in part, and how to give one up. Both may be empty.
    std::function<std::vector<UploadView>()> uploads = {};
    std::function<void(const std::string& id)> drop_upload = {};
  };

  ImageService(ImageParts parts, ImageLimits limits, Hooks hooks);
  ~ImageService();

  void SetLimits(ImageLimits limits) { limits_ = limits; }
  Result<std::unique_ptr<Engine::Upload>> NewUpload(UploadRequest request) {
    return imports_.NewUpload(std::move(request), LimitsForUpload());
  }
  // Ends all uploads; their imports are over once importing() is false. Nothing is swept any more.
  void StopImports() {
    stopping_ = true;
    imports_.Stop();
  }
  void View(const std::string& name, TreeView view, std::function<void(Result<UniqueFd>)> done);
  void Remove(const std::string& name, std::function<void(Status)> done);
  void Verify(const std::string& name, std::function<void(Result<VerifyReport>)> done);
  void Prune(PruneScope scope, std::function<void(Result<PruneReport>)> done);
  Result<std::unique_ptr<Engine::Download>> Export(const std::string& name);
  // Gives up uploads that stopped half way and removes unused images, the longest unused first,
  // when the disk is fuller than the high mark.
  void Collect(std::function<void()> done);
  // Compares the layers on disk with the rows: unknown ones go, missing ones are marked. Ahead of
  // everything else when called first. kUnavailable while there is no launcher.
  void Sweep(std::function<void(Status)> done);
  // For imports of other kinds than uploads.
  ImportService& imports() { return imports_; }
  UploadLimits LimitsForUpload() const;
  bool importing() const { return imports_.under_way() > 0; }
  size_t busy() const { return ops_.size() + imports_.under_way(); }

 private:
  // Rows and catalog; a report of a failure when that fails.
  void Store(ImportReport report, std::function<void(ImportReport)> done);
  void Show(ImportReport* report);
  void RemoveNow(const std::string& name, std::function<void(Status)> done);
  // The rows, then the layers nobody else has. Inside an operation; all or none of the rows.
  void RemoveRows(std::vector<ImageRecord> images, std::function<void(Result<PruneReport>)> done);
  std::string UserOf(const std::string& digest) const;
  CollectionCandidates Candidates() const;
  // Tells what was freed.
  void CollectNow(const DiskUse& disk, std::function<void(uint64_t)> done);
  // After an import that found no space.
  void MakeRoom(ImportReport report, std::function<void(ImportReport)> done);
  // Keeps those nobody needs, and nobody may need until table_.EndRemoval.
  void ClaimUnneeded(std::vector<LayerId>& layers);
  // Those no row needs; failures are logged and left to a later sweep.
  void RemoveLayers(std::vector<LayerId> layers, std::function<void()> done);
  void SweepLater();
  void ApplySweep(const std::vector<LayerId>& on_disk, std::function<void()> done);
  void SweepRecords(const std::function<void()>& done);

  static constexpr Duration kFirstSweepPause = std::chrono::seconds(1);
  static constexpr Duration kLongestSweepPause = std::chrono::minutes(10);

  ImageParts parts_;
  ImageLimits limits_;
  Hooks hooks_;
  OpQueue ops_;
  std::string last_collection_;  // what the log was told
  LayerTable table_;
  ImportService imports_;
  bool stopping_ = false;
  EventLoop::TimerId sweep_timer_ = 0;
  Duration sweep_pause_ = kFirstSweepPause;
};

}  // namespace pulga
