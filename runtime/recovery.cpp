#include "runtime/recovery.h"

#include <set>

namespace pulga {

SweepPlan PlanSweep(const std::vector<LayerId>& on_disk, const std::map<LayerId, uint64_t>& rows) {
  SweepPlan plan;
  const std::set<LayerId> present(on_disk.begin(), on_disk.end());
  for (const LayerId& layer : present) {
    if (!rows.contains(layer)) plan.remove.push_back(layer);
  }
  for (const auto& [layer, size] : rows) {
    if (!present.contains(layer)) plan.missing.push_back(layer);
  }
  return plan;
}

}  // namespace pulga
