// What one slot's cgroup says about the instance in it: killed for memory, peak, CPU, current use.
// Counters of a reused slot go on counting, so Begin() takes a base line and End() the difference.
// Reads open fds only: works for the unprivileged daemon that received them. Never blocks.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "sandbox/cgroup_dialect.h"

namespace pulga {

struct CounterFd {
  UniqueFd fd;  // invalid: this kernel does not tell
  CounterFormat format = CounterFormat::kNumber;
};

struct CounterFds {
  CounterFd oom_kills;
  CounterFd memory_peak;  // opened for writing too where the kernel lets it be reset
  CounterFd memory_current;
  CounterFd cpu_usage;
};

struct SlotUsage {
  uint64_t oom_kills = 0;
  uint64_t memory_peak_bytes = 0;  // 0: unknown. Since the slot's making where no reset exists
  Duration cpu_time{0};
};

class SlotCounters {
 public:
  SlotCounters() = default;
  explicit SlotCounters(CounterFds fds) : fds_(std::move(fds)) {}

  void Begin();
  SlotUsage End() const;
  uint64_t CurrentBytes() const;  // 0 where unreadable
  const CounterFds& fds() const { return fds_; }
  CounterFds TakeFds() { return std::move(fds_); }

 private:
  CounterFds fds_;
  uint64_t oom_base_ = 0;
  uint64_t cpu_base_ns_ = 0;
};

}  // namespace pulga
