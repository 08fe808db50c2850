// ImageWorker: what the spool thread does for ImageService, blocking: imports, listings, removals.
// The real one is images/Importer over an UnpackRunner; tests have one in memory. Spool thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "images/importer.h"
#include "runtime/engine.h"

namespace pulga {

class ImageWorker {
 public:
  virtual ~ImageWorker() = default;
  virtual ImportReport Import(UniqueFd spool, const ImportOptions& options,
                              const ImportLimits& limits) = 0;
  virtual Result<UniqueFd> List(const std::vector<LayerId>& layers, TreeView view) = 0;
  virtual Status Remove(const LayerId& layer) = 0;
};

class ImporterWorker final : public ImageWorker {
 public:
  // `runner` outlives this; unnamed temporary files are made in `scratch_dir`.
  ImporterWorker(UnpackRunner& runner, std::string scratch_dir)
      : runner_(runner), scratch_dir_(std::move(scratch_dir)) {}

  ImportReport Import(UniqueFd spool, const ImportOptions& options,
                      const ImportLimits& limits) override {
    return Importer(runner_, limits, scratch_dir_).Import(std::move(spool), options);
  }
  Result<UniqueFd> List(const std::vector<LayerId>& layers, TreeView view) override {
    Importer importer(runner_, ImportLimits{}, scratch_dir_);
    return view == TreeView::kTree ? importer.Tree(layers) : importer.Sums(layers);
  }
  Status Remove(const LayerId& layer) override {
    return Importer(runner_, ImportLimits{}, scratch_dir_).Remove(layer);
  }

 private:
  UnpackRunner& runner_;
  std::string scratch_dir_;
};

}  // namespace pulga
