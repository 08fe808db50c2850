#include "sandbox/slot_freezer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/sys.h"
#include "sandbox/slot_memory.h"

namespace pulga {
Result<SlotFreezer> SlotFreezer::Adopt(FreezerFds fds) {
  const CgroupDialect* dialect = DialectOfFile(fds.state.get());
  if (dialect == nullptr || DialectOfFile(fds.processes.get()) != dialect) {
    return Error{Code::kInvalidArgument, 0, "freezer: no files of a cgroup"};
  }
  return SlotFreezer(std::move(fds), *dialect);
}

Status SlotFreezer::Write(const std::string& value) {
  if (!usable()) return Error{Code::kUnsupported, 0, "this kernel has no cgroup freezer"};
  const ssize_t n = PULGA_SYS(pwrite, fds_.state.get(), value.data(), value.size(), 0);
  if (n == static_cast<ssize_t>(value.size())) return OkStatus();
  return LastError("write " + value + " to " + dialect_->freeze_file);
}

Status SlotFreezer::Freeze() {
  PULGA_RETURN_IF_ERROR(Write(dialect_ == nullptr ? "" : dialect_->freeze_value));
  frozen_ = true;
  return OkStatus();
}

Status SlotFreezer::Thaw() {
  PULGA_RETURN_IF_ERROR(Write(dialect_ == nullptr ? "" : dialect_->thaw_value));
  frozen_ = false;
  return OkStatus();
}

uint32_t SlotFreezer::Processes() const {
  if (!fds_.processes.valid()) return 0;
  char text[4096];
  uint32_t count = 0;
  ssize_t n;
  for (off_t at = 0; (n = pread(fds_.processes.get(), text, sizeof text, at)) > 0; at += n) {
    count += static_cast<uint32_t>(std::count(text, text + n, '\n'));
  }
  return count;
}

}  // namespace pulga
