// Recovery: what a start does about the difference between the rows, which are the truth, and the
// disk. Pure: from snapshots to a plan.
#pragma once

#include <map>
#include <vector>

#include "base/layer_id.h"

namespace pulga {

struct SweepPlan {
  std::vector<LayerId> remove;   // on disk without a row: left by a crash
  std::vector<LayerId> missing;  // a row without a directory: its images are broken
};

SweepPlan PlanSweep(const std::vector<LayerId>& on_disk, const std::map<LayerId, uint64_t>& rows);

}  // namespace pulga
