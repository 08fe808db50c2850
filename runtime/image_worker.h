// ImageWorker: what other threads do for ImageService, blocking: listings and removals on the spool
// thread, each import on its own.
// The real one is images/Importer over an UnpackRunner; tests have one in memory. Spool thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "images/importer.h"
#include "images/layer_verify.h"
#include "images/record_store.h"
#include "runtime/engine.h"

namespace pulga {

class ImageWorker {
 public:
  virtual ~ImageWorker() = default;
  // On a thread of the import's own; `confirm` as in UploadOptions.
  virtual ImportReport Import(UniqueFd input, const ImportOptions& options,
                              const ImportLimits& limits, std::function<Status()> confirm) = 0;
  virtual Result<UniqueFd> List(const std::vector<LayerId>& layers, TreeView view) = 0;
  virtual Result<VerifyReport> Verify(const ImageRecord& image) = 0;
  // The layer and its record.
  virtual Status Remove(const LayerId& layer) = 0;
  virtual Result<std::vector<LayerId>> ListRecords() = 0;
  virtual Status RemoveRecords(const std::vector<LayerId>& layers) = 0;
};

class ImporterWorker final : public ImageWorker {
 public:
  // `runner` outlives this; unnamed temporary files are made in `scratch_dir`.
  ImporterWorker(UnpackRunner& runner, std::string scratch_dir)
      : runner_(runner), scratch_dir_(std::move(scratch_dir)) {}

  ImportReport Import(UniqueFd input, const ImportOptions& options, const ImportLimits& limits,
                      std::function<Status()> confirm) override {
    return Importer(runner_, limits, scratch_dir_)
        .Import(std::move(input), options, std::move(confirm));
  }
  Result<UniqueFd> List(const std::vector<LayerId>& layers, TreeView view) override {
    Importer importer(runner_, ImportLimits{}, scratch_dir_);
    return view == TreeView::kTree ? importer.Tree(layers) : importer.Sums(layers);
  }
  Result<VerifyReport> Verify(const ImageRecord& image) override {
    const VerifyTools tools{runner_, RecordStore(scratch_dir_), scratch_dir_};
    VerifyReport report;
    report.image = image;
    for (const LayerRecord& layer : image.layers) {
      PULGA_ASSIGN_OR_RETURN(auto differences, VerifyLayer(tools, layer));
      report.layers.push_back({layer.diff_id, std::move(differences)});
    }
    return report;
  }
  Status Remove(const LayerId& layer) override {
    return Importer(runner_, ImportLimits{}, scratch_dir_).Remove(layer);
  }
  Result<std::vector<LayerId>> ListRecords() override { return RecordStore(scratch_dir_).List(); }
  Status RemoveRecords(const std::vector<LayerId>& layers) override {
    for (const LayerId& layer : layers) {
      PULGA_RETURN_IF_ERROR(RecordStore(scratch_dir_).Remove(layer));
    }
    return OkStatus();
  }

 private:
  UnpackRunner& runner_;
  std::string scratch_dir_;
};

}  // namespace pulga
