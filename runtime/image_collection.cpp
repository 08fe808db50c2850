#include "runtime/image_collection.h"

#include <algorithm>

#include "base/units.h"

namespace pulga {
namespace {

std::string Percent(uint64_t percent) { return std::to_string(percent) + " %"; }

// Above zero: so much has to go.
uint64_t Excess(const DiskUse& disk, uint32_t mark) {
  const uint64_t total = disk.used_bytes + disk.available_bytes;
  const uint64_t allowed = total / 100 * mark + total % 100 * mark / 100;
  return disk.used_bytes > allowed ? disk.used_bytes - allowed : 0;
}

// Those not in use. Stable, so that what is decided does not depend on chance.
template <typename Candidate>
std::vector<const Candidate*> LongestUnused(const std::vector<Candidate>& all) {
  std::vector<const Candidate*> unused;
  for (const Candidate& one : all) {
    if (!one.in_use) unused.push_back(&one);
  }
  std::stable_sort(unused.begin(), unused.end(), [](const auto* a, const auto* b) {
    return a->last_used_unix_ms < b->last_used_unix_ms;
  });
  return unused;
}

}  // namespace

uint64_t DiskUse::percent() const {
  const uint64_t total = used_bytes + available_bytes;
  if (total == 0) return 0;
  const uint64_t hundredth = total / 100 == 0 ? 1 : total / 100;
  return std::min<uint64_t>(100, (used_bytes + hundredth - 1) / hundredth);
}

CollectionPlan PlanCollection(const DiskUse& disk, const CollectionMarks& marks,
                              const CollectionCandidates& candidates) {
  CollectionPlan plan;
  if (marks.high >= 100 || Excess(disk, marks.high) == 0) return plan;
  const uint64_t wanted = Excess(disk, marks.low);
  for (const UploadCandidate* upload : LongestUnused(candidates.uploads)) {
    if (plan.freed_bytes >= wanted) break;
    plan.uploads.push_back(upload->id);
    plan.freed_bytes += upload->bytes;
  }
  std::map<LayerId, uint32_t> users;
  for (const CollectionCandidate& image : candidates.images) {
    for (const auto& [layer, bytes] : image.layers) ++users[layer];
  }
  for (const CollectionCandidate* image : LongestUnused(candidates.images)) {
    if (plan.freed_bytes >= wanted) break;
    plan.digests.push_back(image->digest);
    for (const auto& [layer, bytes] : image->layers) {
      if (--users[layer] == 0) plan.freed_bytes += bytes;
    }
  }
  plan.reason = "the disk is " + Percent(disk.percent()) + " full, above the mark of " +
                Percent(marks.high) + ": ";
  plan.reason += plan.digests.empty() && plan.uploads.empty()
                     ? "but every image is in use, or was within the last 10 minutes"
                     : std::to_string(plan.uploads.size()) + " uploads that stopped half way and " +
                           std::to_string(plan.digests.size()) + " unused images with " +
                           HumanBytes(plan.freed_bytes) +
                           " go, the longest unused first, to get to " + Percent(marks.low);
  return plan;
}

}  // namespace pulga
