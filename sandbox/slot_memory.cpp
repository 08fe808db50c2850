#include "sandbox/slot_memory.h"

#include <sys/vfs.h>
#include <unistd.h>

namespace pulga {
namespace {

// Behind what is looked for stand up to a hundred lines on reclaim and faults.
constexpr size_t kHeadOfStat = 2048;

std::string_view ReadHead(int fd, char* buffer, size_t size) {
  const ssize_t n = pread(fd, buffer, size, 0);
  return n <= 0 ? std::string_view() : std::string_view(buffer, static_cast<size_t>(n));
}

}  // namespace

const CgroupDialect* DialectOfFile(int fd) {
  struct statfs fs = {};
  if (fstatfs(fd, &fs) != 0) return nullptr;
  for (const CgroupDialect* dialect : {&CgroupV1(), &CgroupV2()}) {
    if (static_cast<uint32_t>(fs.f_type) == dialect->file_system) return dialect;
  }
  return nullptr;
}

Result<SlotMemory> SlotMemory::Adopt(MemoryFds fds) {
  SlotMemory memory;
  memory.dialect_ = DialectOfFile(fds.stat.get());
  if (memory.dialect_ == nullptr ||
      (fds.swap.valid() && DialectOfFile(fds.swap.get()) != memory.dialect_)) {
    return Error{Code::kInvalidArgument, 0, "memory: no files of a cgroup"};
  }
  memory.fds_ = std::move(fds);
  return memory;
}

InstanceMemory SlotMemory::Read(uint64_t total) const {
  InstanceMemory memory;
  memory.total = total;
  if (dialect_ == nullptr) return memory;
  char text[kHeadOfStat];
  const std::string_view stat = ReadHead(fds_.stat.get(), text, sizeof text);
  if (stat.empty()) return memory;
  memory = ParseMemoryStat(dialect_->memory_keys, stat, total);
  if (!fds_.swap.valid()) return memory;
  const std::string_view swap = ReadHead(fds_.swap.get(), text, sizeof text);
  memory.swapped = ParseCounter(dialect_->memory_swap.format, swap).value_or(0);
  return memory;
}

}  // namespace pulga
