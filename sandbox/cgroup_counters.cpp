#include "sandbox/cgroup_counters.h"

#include <unistd.h>

namespace pulga {
namespace {

uint64_t Read(const CounterFd& counter) {
  if (!counter.fd.valid()) return 0;
  char text[1024];  // memory.events and the head of cpu.stat fit
  const ssize_t size = pread(counter.fd.get(), text, sizeof text, 0);
  if (size <= 0) return 0;
  return ParseCounter(counter.format, std::string_view(text, static_cast<size_t>(size)))
      .value_or(0);
}

uint64_t Since(uint64_t now, uint64_t base) { return now > base ? now - base : 0; }

}  // namespace

void SlotCounters::Begin() {
  if (fds_.memory_peak.fd.valid() && pwrite(fds_.memory_peak.fd.get(), "0", 1, 0) != 1) {
    // This kernel (v2 before 6.12) cannot reset it: the peak stays that of the slot's whole life.
  }
  oom_base_ = Read(fds_.oom_kills);
  cpu_base_ns_ = Read(fds_.cpu_usage);
}

SlotUsage SlotCounters::End() const {
  SlotUsage usage;
  usage.oom_kills = Since(Read(fds_.oom_kills), oom_base_);
  usage.memory_peak_bytes = Read(fds_.memory_peak);
  usage.cpu_time = Duration(Since(Read(fds_.cpu_usage), cpu_base_ns_));
  return usage;
}

uint64_t SlotCounters::CurrentBytes() const { return Read(fds_.memory_current); }

}  // namespace pulga
