#include "sandbox/slot_cpu.h"

#include <unistd.h>

#include "sandbox/slot_memory.h"

namespace pulga {
namespace {

std::optional<uint64_t> ReadCounter(int fd, CounterFormat format) {
  char text[1024];  // the head of cpu.stat has both
  const ssize_t n = pread(fd, text, sizeof text, 0);
  if (n <= 0) return std::nullopt;
  return ParseCounter(format, std::string_view(text, static_cast<size_t>(n)));
}

}  // namespace

Result<SlotCpu> SlotCpu::Adopt(CpuFds fds) {
  SlotCpu cpu;
  const CgroupDialect* usage = DialectOfFile(fds.usage.get());
  const CgroupDialect* throttled =
      fds.throttled.valid() ? DialectOfFile(fds.throttled.get()) : usage;
  if (usage == nullptr || throttled == nullptr) {
    return Error{Code::kInvalidArgument, 0, "cpu: no files of a cgroup"};
  }
  cpu.usage_ = usage->cpu_usage.format;
  cpu.throttled_ = throttled->cpu_throttled.format;
  cpu.fds_ = std::move(fds);
  return cpu;
}

std::optional<InstanceCpu> SlotCpu::Read() const {
  if (!fds_.usage.valid()) return std::nullopt;
  const auto used = ReadCounter(fds_.usage.get(), usage_);
  if (!used) return std::nullopt;
  InstanceCpu cpu;
  cpu.used = Duration(static_cast<int64_t>(*used));
  if (fds_.throttled.valid())
    cpu.throttled = ReadCounter(fds_.throttled.get(), throttled_).value_or(0);
  return cpu;
}

}  // namespace pulga
