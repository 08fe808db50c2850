// What one slot takes, in parts, by descriptors that root opened and handed on. Reads open files of
// a cgroup only, so the unprivileged daemon may. Some 30 us: the kernel adds up its counters.
// Source: kernel Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/cgroup_dialect.h"

namespace pulga {

struct MemoryFds {
  UniqueFd stat;  // invalid: this kernel does not tell
  UniqueFd swap;  // invalid: the other one tells, or nobody does
};

class SlotMemory {
 public:
  SlotMemory() = default;  // tells the total only
  // Descriptors from a process that is not trusted: of a cgroup file system, else kInvalidArgument.
  static Result<SlotMemory> Adopt(MemoryFds fds);
  InstanceMemory Read(uint64_t total) const;

 private:
  MemoryFds fds_;
  const CgroupDialect* dialect_ = nullptr;
};

// Which kind of cgroup file system an open file is of; nullptr: of none.
const CgroupDialect* DialectOfFile(int fd);

}  // namespace pulga
