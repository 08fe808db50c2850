// How much processor one slot used and how often its quota held it up, by descriptors that root
// opened and handed on. Reads open files of a cgroup only, so the unprivileged daemon may: two
// reads, some 5 us. Counters of a reused slot go on counting: take differences.
// Source: kernel Documentation/scheduler/sched-bwc.rst, admin-guide/cgroup-v2.rst (cpu.stat).
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/cgroup_dialect.h"

namespace pulga {

struct CpuFds {
  UniqueFd usage;      // invalid: this kernel does not tell, or nobody asked
  UniqueFd throttled;  // invalid: it has no quotas
};

class SlotCpu {
 public:
  SlotCpu() = default;  // knows nothing
  // Descriptors from a process that is not trusted: of a cgroup file system, else kInvalidArgument.
  static Result<SlotCpu> Adopt(CpuFds fds);
  std::optional<InstanceCpu> Read() const;

 private:
  CpuFds fds_;
  CounterFormat usage_ = CounterFormat::kNumber;
  CounterFormat throttled_ = CounterFormat::kNumber;
};

}  // namespace pulga
