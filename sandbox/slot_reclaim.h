// Pushes the pages of one frozen slot out to swap: a plan of the dialect, carried out. Launcher
// only: Open, Begin, End and MemoryBytes are a few file operations of a kernel file system; Run
// takes as long as reclaiming does and belongs into a child, which a SIGKILL ends at once wherever
// it is. Source: kernel Documentation/admin-guide/cgroup-v2.rst (memory.reclaim),
// mm/memcontrol-v1.c.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/cgroup.h"

namespace pulga {

// kProcesses: process_madvise, for kernels whose cgroups have no file for it.
enum class ReclaimBy : uint8_t { kCgroupFile, kProcesses, kNothing };
ReclaimBy ReclaimByOf(bool has_file, bool has_process_madvise);

struct ReclaimTarget {
  uint64_t version_id = 0;
  uint16_t slot = 0;
  SandboxLimits limits;              // as they are in force
  std::optional<ReclaimBy> by = {};  // not given: the best there is
};

class SlotReclaim {
 public:
  SlotReclaim() = default;
  // Opens its files. kInvalidArgument: it is not frozen. kUnsupported: this kernel cannot, or its
  // pages would go to a swap that is no zram and limits.swap is 0.
  static Result<SlotReclaim> Open(const CgroupTree& cgroups, const ReclaimTarget& target);
  // Opens the slot to swap. End it whatever became of this.
  Status Begin() const;
  // 0, or the errno; ECANCELED once it is not frozen any more.
  int Run() const;
  // The slot has its limits again. An error: it may not, and must not be used any more.
  [[nodiscard]] Status End() const;
  uint64_t MemoryBytes() const;

 private:
  bool Frozen() const;
  int RunOnce() const;

  const CgroupDialect* freezer_ = nullptr;  // null: by signals
  ReclaimBy by_ = ReclaimBy::kCgroupFile;
  std::string mark_;
  CounterFormat format_ = CounterFormat::kNumber;
  std::string directory_;  // of the memory controller
  ReclaimPlan plan_;
  UniqueFd reclaim_;
  UniqueFd state_;
  UniqueFd current_;
};

// Whether this kernel has what Reclaim needs, as a row of a version's isolation report. kDegraded:
// it has, but some swap is in the way as long as that is active.
Feature ReclaimLayer(const CgroupTree& cgroups, const ReclaimTarget& target);

}  // namespace pulga
