// ImageExport: an image's archive as a stream (images/archive_export.h), pulled by the loop. The
// layers' bytes come through pipes from confined unpackers, one after the other; nothing is stored,
// and nobody is kept waiting: a slow reader makes the unpacker wait. Loop thread. Destroying it
// ends the unpacker and lets go of the image.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/work_queue.h"
#include "images/archive_export.h"
#include "images/record_store.h"
#include "runtime/engine.h"
#include "runtime/image_catalog.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct ExportParts {
  EventLoop& loop;
  WorkQueue& storage;  // opens records, reads the configuration
  Sandbox& sandbox;
  RecordStore records;
  std::function<Result<std::string>()> config;  // of the image; on `storage`
};

class ImageExport final : public Engine::Download {
 public:
  // `parts` outlive this; `pin` keeps the image.
  ImageExport(ExportParts parts, ExportPlan plan, ImageCatalog::Pin pin)
      : parts_(std::move(parts)), plan_(std::move(plan)), pin_(std::move(pin)) {}
  ~ImageExport() override;

  uint64_t size() const override { return plan_.bytes; }
  void OnReady(std::function<void()> ready) override { ready_ = std::move(ready); }
  ReadResult Read(char* buffer, size_t capacity) override;

 private:
  enum class Layer { kNotBegun, kOpening, kRunning };
  void LoadConfig(uint64_t expected);
  void OpenLayer();
  void RunJob(UniqueFd record);
  void OnJobEnded(const Status& status);
  ReadResult ReadLayer(char* buffer, size_t capacity);
  bool LayerDone() const { return drained_ && job_done_; }
  void WaitForBytes();
  void StopWatching();
  void Fail(const Error& error);
  void Wake();

  ExportParts parts_;
  ExportPlan plan_;
  ImageCatalog::Pin pin_;
  std::function<void()> ready_;
  size_t part_ = 0;
  size_t text_sent_ = 0;
  bool loading_ = false;  // the configuration
  uint64_t layer_sent_ = 0;
  Layer layer_ = Layer::kNotBegun;
  bool drained_ = false;   // the pipe is at its end
  bool job_done_ = false;  // and well
  UniqueFd pipe_;
  UniqueFd channel_;
  bool watching_ = false;
  bool failed_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace pulga
