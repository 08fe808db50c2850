// ImagePulls: images from registries, as imports whose members come from pulga-fetcher. Loop
// thread; the work is done on an importer's thread. A pull ends at once when nobody wants it any
// more. On failure: as any import (import_service.h).
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "base/event_loop.h"
#include "images/unpack_runner.h"
#include "runtime/engine.h"
#include "runtime/import_service.h"
#include "runtime/registry_access.h"

namespace pulga {

class ImagePulls {
 public:
  // `runner`, `imports` and `loop` outlive this and all pulls.
  ImagePulls(EventLoop& loop, UnpackRunner& runner, ImportService& imports,
             std::string scratch_dir);
  ~ImagePulls();

  // For pulls that begin from now on.
  void SetLimits(UploadLimits limits, RegistryAccess access);
  // As Engine::PullImage.
  std::unique_ptr<Engine::Pull> Start(PullRequest request,
                                      std::function<void(const PullProgress&)> progress,
                                      std::function<void(ImportReport)> done);
  // The daemon stops: all pulls under way fail, soon, and later ones at once.
  void Stop();

 private:
  struct Task;
  class Handle;
  struct Source;
  static void Cancel(Task& task);
  static ImportReport Fetch(const std::shared_ptr<Task>& task, const Source& source,
                            const ImportOptions& options);

  EventLoop& loop_;
  UnpackRunner& runner_;
  ImportService& imports_;
  std::string scratch_dir_;
  UploadLimits limits_;
  RegistryAccess access_;
  std::set<std::shared_ptr<Task>> tasks_;
  bool stopped_ = false;
  std::shared_ptr<ImagePulls*> self_ = std::make_shared<ImagePulls*>(this);
};

}  // namespace pulga
