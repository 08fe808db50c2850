// One import, from the first member to the report; see importer.h. The thread of the importer.
//
// Layers are unpacked as soon as an early plan names them and their blob and their parents are
// there, while the rest arrives. That is only a head start: layers are named by what they hold, and
// once everything has come, the plan is made anew and decides alone.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "images/archive_plan.h"
#include "images/importer.h"
#include "images/member_feed.h"
#include "images/unpack_wire.h"

namespace pulga {

class ImportRun {
 public:
  ImportRun(UnpackRunner& runner, const ImportLimits& limits, const std::string& scratch_dir,
            const ImportOptions& options);

  // Before anything arrives: can the name be given?
  Status CheckRef();
  Status Run(MemberFeed& feed);
  ImportReport TakeReport(const Status& status);

 private:
  class Files;
  // The layers below the next one, base first.
  struct Chain {
    std::vector<LayerId> layers;
    uint64_t bytes = 0;  // of their regular files
  };

  // kTooLarge when the image is with it.
  Status Append(const LayerId& id, const LayerRecord& layer, Chain* chain) const;
  // What the next layer's files may hold.
  uint64_t BytesLeft(const Chain& chain) const;
  LayerId NextId(const Chain& chain, const PlannedLayer& layer) const;
  Status Receive(MemberFeed& feed);
  Status PlanAhead(MemberFeed& feed);
  Status AskFor(MemberFeed& feed);
  Status UnpackAhead();
  Result<std::vector<PlannedImage>> PlanAll(const MemberFeed& feed);
  Status NameImages(std::vector<PlannedImage>* images);
  Status UnpackImage(PlannedImage planned);
  // The layer as it is stored, or unpacked now from its blob; nullptr when that is not there.
  Result<LayerRecord> Provide(const PlannedLayer& layer, const ArchiveMember* blob,
                              const Chain& chain, const LayerId& id);
  Result<LayerRecord> UnpackLayer(const PlannedLayer& layer, const ArchiveMember& blob,
                                  const Chain& chain, const LayerId& id);
  Status RunLayerJob(UnpackJob job, std::optional<LayerResult>* result);
  Status MakeDurable(MemberFeed& feed);
  void Report(ImportProgress::Step step, uint64_t layer_bytes);
  void WarnAbout(const LayerResult& result, const std::string& layer);
  Error Because(ImportReason reason, Error error);

  UnpackRunner& runner_;
  const ImportLimits& limits_;
  const std::string& scratch_dir_;
  const ImportOptions& options_;
  std::optional<ImportReason> reason_;  // set where the error's code does not tell
  int plain_fd_ = -1;                   // the feed's
  ArchiveIndex index_;
  std::set<std::string> awaited_;  // documents that make another early plan worth trying
  int early_plans_ = 0;
  uint64_t early_bytes_ = 0;
  std::vector<PlannedImage> ahead_;  // the early plan
  size_t ahead_image_ = 0;           // the next layer of it to unpack
  size_t ahead_layer_ = 0;
  Chain ahead_chain_;
  uint64_t unpacked_bytes_ = 0;          // of all layers that were unpacked
  std::map<LayerId, LayerRecord> done_;  // `reused` as the report will say it
  ImportProgress progress_;
  ImportReport report_;
  std::vector<std::string> layer_warnings_;  // behind those of the plan
};

}  // namespace pulga
