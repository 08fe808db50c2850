// Which images go, decided without touching anything: by hand (prune), and by themselves when the
// disk fills (collection). Pure: from snapshots to a list with reasons.
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

struct CollectionPlan {
  std::vector<std::string> digests;  // in the order they are given up
  uint64_t freed_bytes = 0;          // by the rows' account
  std::string reason;                // for the log; empty when there is nothing to do
};

// All images are given, those in use too: a layer frees nothing while another image has it.
CollectionPlan PlanCollection(const DiskUse& disk, const CollectionMarks& marks,
                              const std::vector<CollectionCandidate>& images);

}  // namespace pulga
