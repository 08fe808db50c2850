// One slot's freezer, by descriptors that root opened and handed on: whoever has them may stop and
// continue what is in that slot, and count it, and nothing else.
// Never blocks for long: a write marks the slot's processes; they stop, each on its own, within a
// moment. What is frozen cannot die of a signal (v1): thaw first. A write costs some 80 us on v1
// and 3 us on v2, after idleness 110 and 25 (bench/figures.md).
// Source: kernel Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/cgroup_dialect.h"

namespace pulga {

struct FreezerFds {
  UniqueFd state;      // write-only; invalid: this kernel has no freezer, or nobody asked
  UniqueFd processes;  // the slot's cgroup.procs, read-only
};

class SlotFreezer {
 public:
  SlotFreezer() = default;  // one that can do nothing: kUnsupported
  SlotFreezer(FreezerFds fds, const CgroupDialect& dialect)
      : fds_(std::move(fds)), dialect_(&dialect) {}
  // Descriptors from a process that is not trusted: of a cgroup file system, else kInvalidArgument.
  static Result<SlotFreezer> Adopt(FreezerFds fds);

  bool usable() const { return fds_.state.valid(); }
  Status Freeze();
  Status Thaw();
  bool frozen() const { return frozen_; }  // as last asked for
  uint32_t Processes() const;              // living ones in the slot; 0 where unreadable

 private:
  Status Write(const std::string& value);

  FreezerFds fds_;
  const CgroupDialect* dialect_ = nullptr;
  bool frozen_ = false;
};

}  // namespace pulga
