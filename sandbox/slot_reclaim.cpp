#include "sandbox/slot_reclaim.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/sys.h"
#include "sandbox/cgroup_files.h"
#include "sandbox/swap_devices.h"

namespace pulga {
namespace {

namespace files = cgroup_files;

// A round that brings less is the last one.
constexpr uint64_t kWorthARound = 64 << 10;

std::string_view ReadLine(int fd, char* buffer, size_t size) {
  const ssize_t n = pread(fd, buffer, size, 0);
  const std::string_view text(buffer, n <= 0 ? 0 : static_cast<size_t>(n));
  return text.substr(0, text.find('\n'));
}

}  // namespace

Result<SlotReclaim> SlotReclaim::Open(const CgroupTree& cgroups, const ReclaimTarget& target) {
  const CgroupHierarchy* memory = cgroups.layout().Find(CgroupController::kMemory);
  const CgroupHierarchy* freezer = cgroups.layout().Find(CgroupController::kFreezer);
  if (memory == nullptr || freezer == nullptr) {
    return Error{Code::kUnsupported, 0, "reclaim: there is no memory controller, or no freezer"};
  }
  const auto directory = [&](CgroupController controller) {
    return cgroups.SlotDirectory(controller, target.version_id, target.slot);
  };
  SlotReclaim out;
  out.freezer_ = &DialectOf(freezer->version);
  out.directory_ = directory(CgroupController::kMemory);
  out.plan_ = ReclaimPlanFor(memory->version, target.limits);
  PULGA_ASSIGN_OR_RETURN(const ActiveSwap swap, ReadSwaps());
  if (!swap.elsewhere.empty()) {
    PULGA_RETURN_IF_ERROR(MayPushOut(swap, target.limits.swap_bytes));
    out.plan_.before.clear();  // no more than its own limit
    out.plan_.after.clear();
  }
  const CounterFile& current = DialectOf(memory->version).memory_current;
  out.format_ = current.format;
  if (!files::Exists(out.directory_ + "/" + out.plan_.file)) {
    return Error{Code::kUnsupported, 0, "reclaim: " + out.plan_.lacking};
  }
  PULGA_ASSIGN_OR_RETURN(out.reclaim_,
                         files::Open(out.directory_ + "/" + out.plan_.file, O_WRONLY));
  PULGA_ASSIGN_OR_RETURN(out.current_, files::Open(out.directory_ + "/" + current.file, O_RDONLY));
  PULGA_ASSIGN_OR_RETURN(out.state_, files::Open(directory(CgroupController::kFreezer) + "/" +
                                                     out.freezer_->freeze_file,
                                                 O_RDONLY));
  if (!out.Frozen()) return Error{Code::kInvalidArgument, 0, "reclaim: it is not frozen"};
  return out;
}

Status SlotReclaim::Begin() const {
  for (const CgroupWrite& write : plan_.before) {
    const Status written = files::Write(directory_ + "/" + write.file, write.value);
    if (!written.ok()) return Prefix("reclaim", written.error());
  }
  return OkStatus();
}

// Or about to be: nothing runs in it that would want its pages back.
bool SlotReclaim::Frozen() const {
  char text[32];
  const std::string_view state = ReadLine(state_.get(), text, sizeof text);
  return !state.empty() && state != freezer_->thaw_value;
}

uint64_t SlotReclaim::MemoryBytes() const {
  char text[32];
  return ParseCounter(format_, ReadLine(current_.get(), text, sizeof text)).value_or(0);
}

int SlotReclaim::Run() const {
  uint64_t last = MemoryBytes();
  for (;;) {
    if (!Frozen()) return ECANCELED;
    const ssize_t n = PULGA_SYS(pwrite, reclaim_.get(), plan_.value.data(), plan_.value.size(), 0);
    if (n < 0 && errno != EAGAIN && errno != EBUSY) return errno;
    const uint64_t now = MemoryBytes();
    if (n < 0 || now + kWorthARound > last) return 0;  // it keeps the rest
    last = now;
  }
}

Status SlotReclaim::End() const {
  Status out;
  for (const CgroupWrite& write : plan_.after) {
    const Status written = files::Write(directory_ + "/" + write.file, write.value);
    // A version on its way out takes its cgroups along.
    const int why = written.ok() ? 0 : written.error().sys_errno;
    if (why != 0 && why != ENOENT && why != ENODEV)
      out = Prefix("after a reclaim", written.error());
  }
  return out;
}

Feature ReclaimLayer(const CgroupTree& cgroups, const ReclaimTarget& target) {
  constexpr const char* kName = "cgroup.reclaim";
  const CgroupHierarchy* memory = cgroups.layout().Find(CgroupController::kMemory);
  if (memory == nullptr || cgroups.layout().Find(CgroupController::kFreezer) == nullptr) {
    return {kName, FeatureState::kAbsent, "no memory controller, or no freezer", ""};
  }
  const ReclaimPlan plan = ReclaimPlanFor(memory->version, target.limits);
  const std::string directory =
      cgroups.SlotDirectory(CgroupController::kMemory, target.version_id, target.slot);
  if (!files::Exists(directory + "/" + plan.file)) {
    return {kName, FeatureState::kAbsent, plan.lacking, ""};
  }
  const auto swap = ReadSwaps();
  if (swap.ok() && !swap->any) return {kName, FeatureState::kPresent, plan.file, ""};
  const Status may = swap.ok() ? MayPushOut(*swap, target.limits.swap_bytes) : Status(swap.error());
  if (may.ok()) return {kName, FeatureState::kPresent, plan.file, ""};
  return {kName, FeatureState::kDegraded, plan.file + ", but " + may.error().message, ""};
}

}  // namespace pulga
