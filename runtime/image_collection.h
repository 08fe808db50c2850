// Which images go, decided without touching anything: by hand (prune), and by themselves when the
// disk fills (collection): first uploads that stopped half way, then images. Pure: from snapshots
// to a list with reasons.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/layer_id.h"

namespace pulga {

// Percent of the disk in use: above `high` collection begins, and it goes on down to `low`.
// high = 100: never.
struct CollectionMarks {
  uint32_t high = 85;
  uint32_t low = 75;
};

// As df counts: what an unprivileged user may not have counts for neither.
struct DiskUse {
  uint64_t used_bytes = 0;
  uint64_t available_bytes = 0;

  uint64_t percent() const;  // rounded up, as df does
};

struct CollectionCandidate {
  std::string digest;
  bool in_use = false;  // by a function, a deploy, an export; or until just now
  int64_t last_used_unix_ms = 0;
  std::map<LayerId, uint64_t> layers;  // with what each takes on the disk
};

// An unfinished upload; what it brought so far.
struct UploadCandidate {
  std::string id;
  bool in_use = false;  // bytes come, it is being imported; or until just now
  int64_t last_used_unix_ms = 0;
  uint64_t bytes = 0;
};

struct CollectionCandidates {
  std::vector<CollectionCandidate> images;
  std::vector<UploadCandidate> uploads;
};

struct CollectionPlan {
  std::vector<std::string> uploads;  // in the order they are given up
  std::vector<std::string> digests;  // then these
  uint64_t freed_bytes = 0;          // by the rows' account
  std::string reason;                // for the log; empty when there is nothing to do
};

// All images are given, those in use too: a layer frees nothing while another image has it. Whoever
// sent half an archive still has it; an image may be the last of its kind: so uploads go first.
CollectionPlan PlanCollection(const DiskUse& disk, const CollectionMarks& marks,
                              const CollectionCandidates& candidates);

}  // namespace pulga
