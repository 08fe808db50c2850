// ImportService: imports under way, each on a thread of its own for as long as it takes: uploads
// that feed a confined unpacker through a pipe, and pulls. Loop thread. The loop never waits: a
// full pipe stalls its client alone. Bytes that arrive are read by the unpacker, never kept here.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "base/work_queue.h"
#include "images/importer.h"
#include "runtime/engine.h"
#include "runtime/layer_table.h"

namespace pulga {

struct UploadLimits {
  uint64_t upload_bytes = 8ULL << 30;  // as they arrive
  uint32_t at_once = 4;                // imports of all kinds
  ImportLimits import;
};

class ImportService {
 public:
  // On the import's thread, with the options given to Run().
  using Work = std::function<ImportReport(const ImportOptions& options)>;
  using UploadWork =
      std::function<ImportReport(UniqueFd input, const ImportOptions& options,
                                 const ImportLimits& limits, std::function<Status()> confirm)>;
  using ReportDone = std::function<void(ImportReport)>;
  struct Hooks {
    UploadWork upload;  // Importer::Import
    // Makes the images of a good report visible, or says in the report why not.
    std::function<void(ImportReport, ReportDone)> store;
    // A report that says there is no space: makes some for the next try, and adds that to it.
    std::function<void(ImportReport, ReportDone)> make_room;
    // Removes layers nobody needs.
    std::function<void(std::vector<LayerId>, std::function<void()>)> discard;
  };

  ImportService(EventLoop& loop, LayerTable& table, Hooks hooks);
  // Nothing may be under way any more; see Stop().
  ~ImportService();

  Result<std::unique_ptr<Engine::Upload>> NewUpload(UploadRequest request,
                                                    const UploadLimits& limits);
  // kUnavailable when too many are under way.
  Status CheckRoom(uint32_t at_once) const;
  // Runs `work`, stores what it reports, removes what it leaves, then `done`. Whom `work` asks for
  // layers and when it gives up is set in the options here. What is returned gives the import up,
  // if it still runs: it fails soon, and `done` is called all the same.
  std::function<void()> Run(ImportOptions options, Work work, ReportDone done);
  // Gives all imports up; they are over when under_way() is 0.
  void Stop();
  size_t under_way() const { return imports_.size(); }

 private:
  class Claims;
  class UploadImpl;
  struct Stream;
  struct Import {
    LayerTable::Holder holder;
    std::unique_ptr<WorkQueue> thread;
    std::shared_ptr<ImportStop> stop = std::make_shared<ImportStop>();
    std::function<void(ImportReport&)> amend;  // may be empty: a better reason than the work's
    ReportDone done;
  };
  // Gives `work` to a thread of its own, when there is one to be had.
  Result<Import*> Begin(ImportOptions options, Work work, ReportDone done);
  std::function<void()> CancelOf(const Import& running) const;
  void OnReported(LayerTable::Holder holder, ImportReport report);
  void Finish(LayerTable::Holder holder, ImportReport report);

  EventLoop& loop_;
  LayerTable& table_;
  Hooks hooks_;
  std::map<LayerTable::Holder, Import> imports_;
  std::list<std::weak_ptr<Stream>> streams_;
  std::shared_ptr<ImportService*> self_ = std::make_shared<ImportService*>(this);
};

}  // namespace pulga
