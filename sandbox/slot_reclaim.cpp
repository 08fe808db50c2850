#include "sandbox/slot_reclaim.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/sys.h"
#include "sandbox/cgroup_files.h"
#include "sandbox/slot_processes.h"
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

ReclaimBy ReclaimByOf(bool has_file, bool has_process_madvise) {
  if (has_file) return ReclaimBy::kCgroupFile;
  return has_process_madvise ? ReclaimBy::kProcesses : ReclaimBy::kNothing;
}

Result<SlotReclaim> SlotReclaim::Open(const CgroupTree& cgroups, const ReclaimTarget& target) {
  const CgroupHierarchy* memory = cgroups.layout().Find(CgroupController::kMemory);
  const CgroupHierarchy* freezer = cgroups.layout().Find(CgroupController::kFreezer);
  if (memory == nullptr) {
    return Error{Code::kUnsupported, 0, "reclaim: there is no memory controller"};
  }
  const auto directory = [&](CgroupController controller) {
    return cgroups.SlotDirectory(controller, target.version_id, target.slot);
  };
  SlotReclaim out;
  out.directory_ = directory(CgroupController::kMemory);
  out.mark_ = cgroups.mark();
  out.plan_ = ReclaimPlanFor(memory->version, target.limits);
  PULGA_ASSIGN_OR_RETURN(const ActiveSwap swap, ReadSwaps());
  if (!swap.elsewhere.empty()) {
    PULGA_RETURN_IF_ERROR(MayPushOut(swap, target.limits.swap_bytes));
    out.plan_.before.clear();  // no more than its own limit
    out.plan_.after.clear();
  }
  const CounterFile& current = DialectOf(memory->version).memory_current;
  out.format_ = current.format;
  const std::string file = out.directory_ + "/" + out.plan_.file;
  out.by_ = target.by.value_or(ReclaimByOf(files::Exists(file), CanPushOutPages()));
  if (out.by_ == ReclaimBy::kNothing) {
    return Error{Code::kUnsupported, 0, "reclaim: " + out.plan_.lacking};
  }
  if (out.by_ == ReclaimBy::kCgroupFile) {
    PULGA_ASSIGN_OR_RETURN(out.reclaim_, files::Open(file, O_WRONLY));
  }
  PULGA_ASSIGN_OR_RETURN(out.current_, files::Open(out.directory_ + "/" + current.file, O_RDONLY));
  if (freezer != nullptr) {
    out.freezer_ = &DialectOf(freezer->version);
    PULGA_ASSIGN_OR_RETURN(out.state_, files::Open(directory(CgroupController::kFreezer) + "/" +
                                                       out.freezer_->freeze_file,
                                                   O_RDONLY));
  }
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
  if (freezer_ == nullptr) return AllStopped(directory_);
  char text[32];
  const std::string_view state = ReadLine(state_.get(), text, sizeof text);
  return !state.empty() && state != freezer_->thaw_value;
}

uint64_t SlotReclaim::MemoryBytes() const {
  char text[32];
  return ParseCounter(format_, ReadLine(current_.get(), text, sizeof text)).value_or(0);
}

int SlotReclaim::RunOnce() const {
  if (!Frozen()) return ECANCELED;
  if (by_ == ReclaimBy::kProcesses) {
    return PushOutPages(directory_, mark_, [this] { return Frozen(); });
  }
  const ssize_t n = PULGA_SYS(pwrite, reclaim_.get(), plan_.value.data(), plan_.value.size(), 0);
  return n < 0 ? errno : 0;
}

int SlotReclaim::Run() const {
  uint64_t last = MemoryBytes();
  for (;;) {
    const int failed = RunOnce();
    const bool keeps_the_rest = failed == EAGAIN || failed == EBUSY;
    if (failed != 0) return keeps_the_rest ? 0 : failed;
    const uint64_t now = MemoryBytes();
    if (now + kWorthARound > last) return 0;
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
  if (memory == nullptr) return {kName, FeatureState::kAbsent, "no memory controller", ""};
  const ReclaimPlan plan = ReclaimPlanFor(memory->version, target.limits);
  const std::string directory =
      cgroups.SlotDirectory(CgroupController::kMemory, target.version_id, target.slot);
  const ReclaimBy by = ReclaimByOf(files::Exists(directory + "/" + plan.file), CanPushOutPages());
  if (by == ReclaimBy::kNothing) return {kName, FeatureState::kAbsent, plan.lacking, ""};
  const std::string how =
      by == ReclaimBy::kCgroupFile ? plan.file : "process_madvise: " + plan.lacking;
  const auto swap = ReadSwaps();
  if (swap.ok() && !swap->any) return {kName, FeatureState::kPresent, how, ""};
  const Status may = swap.ok() ? MayPushOut(*swap, target.limits.swap_bytes) : Status(swap.error());
  if (may.ok()) return {kName, FeatureState::kPresent, how, ""};
  return {kName, FeatureState::kDegraded, how + ", but " + may.error().message, ""};
}

}  // namespace pulga
