#include "sandbox/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/clock.h"
#include "base/file_io.h"
#include "base/log.h"
#include "base/scope_exit.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/cgroup_files.h"
#include "sandbox/slot_reclaim.h"

namespace pulga {
namespace {

namespace files = cgroup_files;

constexpr Duration kSweepPatience = std::chrono::seconds(3);
constexpr uint64_t kRoomPart = 16;  // of a lower limit has to be free

std::string VersionName(uint64_t version_id) { return "v" + std::to_string(version_id); }
std::string SlotName(uint64_t version_id, uint16_t slot) {
  return VersionName(version_id) + "/slot-" + std::to_string(slot);
}

bool Carries(const CgroupHierarchy& hierarchy, CgroupController controller) {
  const auto& list = hierarchy.controllers;
  return std::find(list.begin(), list.end(), controller) != list.end();
}

// A hierarchy of io alone costs every instance an attach, so it is used only where io is limited.
bool IsNeeded(const CgroupHierarchy& hierarchy, const SandboxLimits& limits) {
  if (limits.io_read_bps != 0 || limits.io_write_bps != 0) return true;
  return hierarchy.controllers.size() != 1 || !Carries(hierarchy, CgroupController::kIo);
}

// v1's cpuset: a new cgroup holds nobody before it has processors and memory nodes. Ours have the
// same as the cgroup above, and those below them get theirs from the kernel.
Status InheritSettings(const CgroupHierarchy& hierarchy, const std::string& directory) {
  const CgroupDialect& dialect = DialectOf(hierarchy.version);
  if (!Carries(hierarchy, dialect.inherited_by)) return OkStatus();
  for (const std::string& file : dialect.inherited_files) {
    PULGA_ASSIGN_OR_RETURN(const std::string value, ReadFile(hierarchy.base + "/" + file));
    PULGA_RETURN_IF_ERROR(files::Write(directory + "/" + file, Trim(value)));
  }
  return files::Write(directory + "/cgroup.clone_children", "1");
}

// v2: what the cgroups below `directory` may use. Nothing to do on v1.
Status EnableControllers(const CgroupHierarchy& hierarchy, const std::string& directory) {
  if (hierarchy.version == CgroupVersion::kV1) return OkStatus();
  const auto present = ReadFile(directory + "/cgroup.subtree_control");
  const std::string enabled = " " + (present.ok() ? *present : std::string());
  std::string wanted;
  for (const CgroupController controller : hierarchy.controllers) {
    if (controller == CgroupController::kCpuacct || controller == CgroupController::kFreezer ||
        controller == CgroupController::kDevices) {
      continue;  // in every v2 cgroup, not controllers of their own
    }
    const std::string name(ControllerName(controller));
    const size_t at = enabled.find(" " + name);
    const bool there = at != std::string::npos && !isalnum(enabled[at + 1 + name.size()]);
    if (!there) wanted += (wanted.empty() ? "+" : " +") + name;
  }
  if (wanted.empty()) return OkStatus();
  Status status = files::Write(directory + "/cgroup.subtree_control", wanted);
  if (status.ok() || status.error().sys_errno != EBUSY) return status;
  Error error = status.error();
  error.message += " (the cgroup has processes of its own; they must move into a child first)";
  return error;
}

// Of the cgroup given to us, for the daemon alone: a cgroup keeps no more than its own memory.min
// and those above it say, and a new one says 0.
void TakeMemoryMin(const CgroupHierarchy& hierarchy) {
  if (!hierarchy.base_is_own) return;
  const auto given = ReadFile(hierarchy.base + "/memory.min");
  if (!given.ok() || given->starts_with("0")) return;
  const std::string leaf = hierarchy.base + "/" + std::string(kCgroupLeafName) + "/memory.min";
  const Status taken = files::Write(leaf, given->substr(0, given->find('\n')));
  if (!taken.ok()) LogWarning("the daemon's memory is not kept: " + taken.error().message);
}

// One limit. A missing file is a warning where the dialect says so; a refused value is an error,
// but for io: stacked disks have the file and no throttling.
Status ApplyWrite(const std::string& directory, const CgroupWrite& write, CgroupReport& report) {
  const std::string path = directory + "/" + write.file;
  if (!write.file.empty() && (write.need == WriteNeed::kMust || files::Exists(path))) {
    Status status = files::Write(path, write.value);
    if (status.ok()) report.Note(write, WriteMade::kYes);
    if (status.ok() || write.controller != CgroupController::kIo) return status;
  }
  report.Note(write, WriteMade::kNo);
  return OkStatus();
}

Status SetTreeWeight(const CgroupHierarchy& hierarchy, const std::string& directory) {
  const CgroupWrite& weight = DialectOf(hierarchy.version).tree_weight;
  CgroupReport ignored;
  return Carries(hierarchy, weight.controller) ? ApplyWrite(directory, weight, ignored)
                                               : OkStatus();
}

struct LimitTarget {
  const CgroupHierarchy& hierarchy;
  std::string directory;
};

Status MakeLimited(const LimitTarget& target, const SandboxLimits& limits, DeviceNumber disk,
                   CgroupReport& report) {
  PULGA_RETURN_IF_ERROR(files::Make(target.directory));
  for (const CgroupWrite& write : LimitWrites(target.hierarchy.version, limits, disk)) {
    if (!Carries(target.hierarchy, write.controller)) continue;
    PULGA_RETURN_IF_ERROR(ApplyWrite(target.directory, write, report));
  }
  return OkStatus();
}

Status AddJoin(const LimitTarget& target, CgroupJoin& join) {
  const CgroupDialect& dialect = DialectOf(target.hierarchy.version);
  if (dialect.attach_file.empty()) {
    PULGA_ASSIGN_OR_RETURN(join.v2_dir, files::Open(target.directory, O_PATH | O_DIRECTORY));
    return OkStatus();
  }
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd,
                         files::Open(target.directory + "/" + dialect.attach_file, O_WRONLY));
  join.v1_tasks.push_back(std::move(fd));
  return OkStatus();
}

// Counters are for telling, not for safety: one that cannot be opened is unknown, not an error.
void AddCounter(const LimitTarget& target, const CounterFile& file, CounterFd& counter) {
  if (!Carries(target.hierarchy, file.controller)) return;
  const std::string path = target.directory + "/" + file.file;
  auto fd = files::Open(path, O_RDWR);
  if (!fd.ok()) fd = files::Open(path, O_RDONLY);
  if (!fd.ok()) return;
  counter = {std::move(*fd), file.format};
}

void AddCounters(const LimitTarget& target, CounterFds& counters) {
  const CgroupDialect& dialect = DialectOf(target.hierarchy.version);
  AddCounter(target, dialect.oom_kills, counters.oom_kills);
  AddCounter(target, dialect.memory_peak, counters.memory_peak);
  AddCounter(target, dialect.memory_current, counters.memory_current);
  AddCounter(target, dialect.cpu_usage, counters.cpu_usage);
}

Status AddFreezer(const LimitTarget& target, FreezerFds& freezer) {
  if (!Carries(target.hierarchy, CgroupController::kFreezer)) return OkStatus();
  const CgroupDialect& dialect = DialectOf(target.hierarchy.version);
  const std::string state = target.directory + "/" + dialect.freeze_file;
  PULGA_ASSIGN_OR_RETURN(freezer.state, files::Open(state, O_WRONLY));
  PULGA_ASSIGN_OR_RETURN(freezer.processes,
                         files::Open(target.directory + "/cgroup.procs", O_RDONLY));
  return OkStatus();
}

// For telling, like the counters.
void AddMemory(const LimitTarget& target, MemoryFds& memory) {
  const CgroupDialect& dialect = DialectOf(target.hierarchy.version);
  for (const auto& [file, out] : {std::pair(&dialect.memory_stat, &memory.stat),
                                  std::pair(&dialect.memory_swap, &memory.swap)}) {
    if (file->file.empty() || !Carries(target.hierarchy, file->controller)) continue;
    auto fd = files::Open(target.directory + "/" + file->file, O_RDONLY);
    if (fd.ok()) *out = std::move(*fd);
  }
}

void AddCpu(const LimitTarget& target, CpuFds& cpu) {
  const CgroupDialect& dialect = DialectOf(target.hierarchy.version);
  for (const auto& [file, out] : {std::pair(&dialect.cpu_usage, &cpu.usage),
                                  std::pair(&dialect.cpu_throttled, &cpu.throttled)}) {
    if (!Carries(target.hierarchy, file->controller)) continue;
    auto fd = files::Open(target.directory + "/" + file->file, O_RDONLY);
    if (fd.ok()) *out = std::move(*fd);
  }
}

// v2: lets `uid` clone processes into `directory` (law 1); limits stay root's.
Status GiveProcs(const LimitTarget& target, uid_t uid) {
  if (target.hierarchy.version == CgroupVersion::kV1) return OkStatus();
  const std::string path = target.directory + "/cgroup.procs";
  if (PULGA_SYS(chown, path.c_str(), uid, static_cast<gid_t>(-1)) == 0) return OkStatus();
  return LastError("give " + path + " to uid " + std::to_string(uid));
}

// Warnings for limits whose controller is in no hierarchy at all.
void WarnOfMissing(const CgroupLayout& layout, const SandboxLimits& limits,
                   std::vector<std::string>& warnings) {
  constexpr const char* kNotGiven = ": this daemon runs as a user and was given no cgroup";
  for (const auto& [controller, name] : {std::pair(CgroupController::kMemory, "memory"),
                                         std::pair(CgroupController::kPids, "pids")}) {
    if (layout.Find(controller) != nullptr) continue;
    warnings.push_back("the " + std::string(name) + " limit is not enforced" + kNotGiven);
  }
  for (const CgroupWrite& write : V2LimitWrites(limits, DeviceNumber{1, 0})) {
    if (layout.Find(write.controller) != nullptr || write.lacking.empty()) continue;
    const std::string what = write.lacking.substr(0, write.lacking.find(':'));
    warnings.push_back(layout.of_user ? what + kNotGiven : write.lacking);
  }
}

void DropRepeats(std::vector<std::string>& warnings) {
  std::vector<std::string> once;
  for (std::string& warning : warnings) {
    if (std::find(once.begin(), once.end(), warning) == once.end()) {
      once.push_back(std::move(warning));
    }
  }
  warnings = std::move(once);
}

SandboxLimits SpawnerLimits(const VersionCgroupOptions& options) {
  SandboxLimits limits;
  limits.memory_bytes = options.spawner_memory_bytes;
  limits.pids = options.spawner_pids;
  return limits;
}

// A second fence: without it there are still no other device nodes, and none can be made. So a
// kernel, or a container around us, that does not allow it is a warning.
Status LimitDevices(const LimitTarget& target, std::span<const DeviceRule> rules,
                    VersionCgroups& out) {
  if (!Carries(target.hierarchy, CgroupController::kDevices)) return OkStatus();
  const DeviceLimits limits = DeviceLimitsFor(target.hierarchy.version, rules);
  const Status done = ApplyDeviceLimits(target.directory, limits);
  if (done.ok()) out.devices = {out.devices.name, FeatureState::kPresent, limits.how, ""};
  const bool refused = !done.ok() && (done.error().code == Code::kUnsupported ||
                                      done.error().code == Code::kPermission);
  if (!refused) return done;
  out.devices.detail = done.error().message;
  out.warnings.push_back("devices are not limited by a cgroup: " + done.error().message);
  return OkStatus();
}

// One version in one hierarchy.
Status CreateIn(const CgroupHierarchy& hierarchy, const std::string& directory,
                const VersionCgroupOptions& options, VersionCgroups& out, CgroupReport& report) {
  const LimitTarget version{hierarchy, directory};
  PULGA_RETURN_IF_ERROR(files::Make(directory));
  PULGA_RETURN_IF_ERROR(LimitDevices(version, options.devices, out));
  PULGA_RETURN_IF_ERROR(EnableControllers(hierarchy, directory));
  PULGA_RETURN_IF_ERROR(GiveProcs(version, options.spawner_uid));
  const LimitTarget spawner{hierarchy, directory + "/spawner"};
  CgroupReport ignored;
  PULGA_RETURN_IF_ERROR(MakeLimited(spawner, SpawnerLimits(options), options.disk, ignored));
  PULGA_RETURN_IF_ERROR(AddJoin(spawner, out.spawner));
  for (uint16_t i = 0; i < options.slots && !IsOfVersion(hierarchy); ++i) {
    const LimitTarget slot{hierarchy, directory + "/slot-" + std::to_string(i)};
    PULGA_RETURN_IF_ERROR(MakeLimited(slot, options.limits, options.disk, report));
    PULGA_RETURN_IF_ERROR(GiveProcs(slot, options.spawner_uid));
    PULGA_RETURN_IF_ERROR(AddJoin(slot, out.slots[i].join));
    AddCounters(slot, out.slots[i].counters);
    AddMemory(slot, out.slots[i].memory);
    if (options.metered) AddCpu(slot, out.slots[i].cpu);
    if (options.freezable) PULGA_RETURN_IF_ERROR(AddFreezer(slot, out.slots[i].freezer));
  }
  return OkStatus();
}

void WaitForDeath(const std::vector<UniqueFd>& pidfds, TimePoint deadline) {
  for (const UniqueFd& pidfd : pidfds) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd wait = {pidfd.get(), POLLIN, 0};
    if (left.count() > 0) poll(&wait, 1, static_cast<int>(left.count()));
  }
}

void SleepBriefly(Duration duration) {
  const timespec ts = {0, static_cast<long>(duration.count())};
  nanosleep(&ts, nullptr);
}

}  // namespace

Status ApplyDeviceLimits(const std::string& directory, const DeviceLimits& limits) {
  for (const CgroupWrite& write : limits.writes) {
    PULGA_RETURN_IF_ERROR(files::Write(directory + "/" + write.file, write.value));
  }
  if (limits.program.empty()) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir, files::Open(directory, O_RDONLY | O_DIRECTORY));
  return AttachDeviceProgram(dir.get(), limits.program);
}

int JoinCgroup(std::span<const int> v1_tasks) {
  for (const int fd : v1_tasks) {
    if (PULGA_SYS(write, fd, "0", 1) != 1) return errno;
  }
  return 0;
}

Status JoinV1Cgroups(const CgroupJoin& join, const char* step) {
  std::vector<int> tasks;
  for (const UniqueFd& fd : join.v1_tasks) tasks.push_back(fd.get());
  const int failed = sys::Faulted() ? errno : JoinCgroup(tasks);
  if (failed != 0) return ErrnoError(step, failed);
  return OkStatus();
}

CgroupTree::CgroupTree(std::string tree, CgroupLayout layout)
    : tree_(std::move(tree)), layout_(std::move(layout)) {}

std::string CgroupTree::Directory(const CgroupHierarchy& hierarchy, const std::string& name) const {
  const std::string root = hierarchy.base + "/" + tree_;
  return name.empty() ? root : root + "/" + name;
}

Result<std::unique_ptr<CgroupTree>> CgroupTree::Open(std::string tree, CgroupLayout layout) {
  std::unique_ptr<CgroupTree> out(new CgroupTree(std::move(tree), std::move(layout)));
  ScopeExit undo([&] {
    for (const CgroupHierarchy& hierarchy : out->layout_.hierarchies) {
      rmdir(out->Directory(hierarchy, "").c_str());  // stays where somebody lives in it
    }
  });
  for (const CgroupHierarchy& hierarchy : out->layout_.hierarchies) {
    PULGA_RETURN_IF_ERROR(EnableControllers(hierarchy, hierarchy.base));
    TakeMemoryMin(hierarchy);
    PULGA_RETURN_IF_ERROR(files::Make(out->Directory(hierarchy, "")));
    const Status inherited = InheritSettings(hierarchy, out->Directory(hierarchy, ""));
    if (!inherited.ok()) return Prefix("cgroup", inherited.error());
    PULGA_RETURN_IF_ERROR(SetTreeWeight(hierarchy, out->Directory(hierarchy, "")));
    PULGA_RETURN_IF_ERROR(EnableControllers(hierarchy, out->Directory(hierarchy, "")));
  }
  undo.Dismiss();
  return out;
}

Result<VersionCgroups> CgroupTree::CreateVersion(const VersionCgroupOptions& options) {
  VersionCgroups out;
  CgroupReport report;
  out.slots.resize(options.slots);
  const std::string name = VersionName(options.version_id);
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    if (!IsNeeded(hierarchy, options.limits)) continue;
    Status status = CreateIn(hierarchy, Directory(hierarchy, name), options, out, report);
    if (status.ok()) continue;
    const Status removed = RemoveAll(name);
    if (!removed.ok()) LogWarning(removed.error().message);
    return status.error();
  }
  out.warnings.insert(out.warnings.end(), report.warnings().begin(), report.warnings().end());
  WarnOfMissing(layout_, options.limits, out.warnings);
  if (layout_.Find(CgroupController::kDevices) == nullptr) {
    out.devices.detail = layout_.of_user ? "only root can limit them" : "not in this kernel";
  }
  if (layout_.Find(CgroupController::kDevices) == nullptr && options.devices != HarmlessDevices()) {
    out.warnings.emplace_back("devices are not limited by a cgroup: this kernel has no such thing");
  }
  DropRepeats(out.warnings);
  out.layers = report.Layers(layout_);
  out.layers.push_back(
      FreezerLayer(layout_, options.freezable ? FreezerUse::kOpened : FreezerUse::kNotAsked));
  out.layers.push_back(ReclaimLayer(*this, {options.version_id, 0, options.limits}));
  out.layers.push_back(out.devices);
  return out;
}

Status CgroupTree::RemoveAll(const std::string& name) {
  Status first;
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    const std::string directory = Directory(hierarchy, name);
    Status status = files::RemoveDeepestFirst(directory);
    if (status.ok() || !first.ok()) continue;
    first = std::move(status);
  }
  if (!first.ok()) KillAll(name);
  return first;
}

std::vector<UniqueFd> CgroupTree::KillAll(const std::string& name) {
  std::vector<UniqueFd> pidfds;
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    const CgroupDialect& dialect = DialectOf(hierarchy.version);
    const std::string directory = Directory(hierarchy, name);
    for (UniqueFd& fd : files::SignalProcesses(directory, mark(), SIGKILL)) {
      pidfds.push_back(std::move(fd));
    }
    // What forks faster than it is listed; v2 only.
    const std::string kill = directory + "/" + dialect.kill_file;
    if (!dialect.kill_file.empty() && files::Exists(kill)) (void)files::Write(kill, "1").ok();
  }
  // A frozen process dies once it is thawed.
  ThawBelow(name);
  return pidfds;
}

Status CgroupTree::RemoveVersion(uint64_t version_id) { return RemoveAll(VersionName(version_id)); }

CgroupTree::Resized CgroupTree::ResizeSlots(const SlotResize& resize) {
  using End = Resized::End;
  Status status = MakeRoom(resize);
  Resized out;
  if (status.ok()) {
    status = WriteSizes(resize);
    const SlotResize back{resize.version_id, resize.slots, resize.to, resize.from};
    if (!status.ok() && !(MakeRoom(back).ok() && WriteSizes(back).ok())) out.end = End::kBetween;
  }
  if (!ReleaseBrakes(resize)) out.end = End::kBetween;
  if (status.ok()) return out;
  if (out.end != End::kBetween) out.end = End::kAsBefore;
  out.error = status.error().sys_errno;
  return out;
}

// For a lower memory limit. v2 kills what does not fit below a new memory.max, so memory.high comes
// first, which only pushes out and slows down, and then it is looked whether that was enough. v1
// refuses such a limit itself; but of the others none is to be cut short for one that stays.
Status CgroupTree::MakeRoom(const SlotResize& resize) const {
  const CgroupHierarchy* hierarchy = layout_.Find(CgroupController::kMemory);
  const uint64_t to = resize.to.memory_bytes;
  if (hierarchy == nullptr || to >= resize.from.memory_bytes) return OkStatus();
  const CgroupDialect& dialect = DialectOf(hierarchy->version);
  for (uint16_t slot = 0; slot < resize.slots; ++slot) {
    const std::string directory = Directory(*hierarchy, SlotName(resize.version_id, slot));
    const bool brakes = !dialect.memory_brake.empty();
    if (brakes) {
      PULGA_RETURN_IF_ERROR(
          files::Write(directory + "/" + dialect.memory_brake, std::to_string(to)));
    }
    PULGA_ASSIGN_OR_RETURN(const std::string current,
                           ReadFile(directory + "/" + dialect.memory_current.file));
    PULGA_ASSIGN_OR_RETURN(const std::string stat,
                           ReadFile(directory + "/" + dialect.memory_stat.file));
    const uint64_t total = ParseCounter(dialect.memory_current.format, current).value_or(0);
    const InstanceMemory memory = ParseMemoryStat(dialect.memory_keys, stat, total);
    const uint64_t held = brakes ? total : memory.anon + memory.kernel;
    if (held > to - to / kRoomPart) {
      return Error{Code::kUnavailable, EBUSY, "an instance holds too much for the lower limit"};
    }
  }
  return OkStatus();
}

// Always: whoever did it before may have died of something in between.
bool CgroupTree::ReleaseBrakes(const SlotResize& resize) const {
  const CgroupHierarchy* hierarchy = layout_.Find(CgroupController::kMemory);
  if (hierarchy == nullptr) return true;
  const std::string& brake = DialectOf(hierarchy->version).memory_brake;
  bool released = true;
  if (brake.empty()) return released;
  for (uint16_t slot = 0; slot < resize.slots; ++slot) {
    const std::string directory = Directory(*hierarchy, SlotName(resize.version_id, slot));
    const std::string path = directory + "/" + brake;
    released = (files::Write(path, "max").ok() || files::Write(path, "max").ok()) && released;
  }
  return released;
}

// Each as far as it can be written: what undoes it must not stop at what was never done.
Status CgroupTree::WriteSizes(const SlotResize& resize) const {
  Status out;
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    const auto writes = ResizeWrites(hierarchy.version, resize.from, resize.to);
    for (uint16_t slot = 0; slot < resize.slots; ++slot) {
      const std::string directory = Directory(hierarchy, SlotName(resize.version_id, slot));
      for (const CgroupWrite& write : writes) {
        if (!Carries(hierarchy, write.controller)) continue;
        CgroupReport ignored;
        const Status written = ApplyWrite(directory, write, ignored);
        if (!written.ok() && out.ok()) out = written;
      }
    }
  }
  return out;
}

void CgroupTree::ThawBelow(const std::string& name) {
  const CgroupHierarchy* hierarchy = layout_.Find(CgroupController::kFreezer);
  if (hierarchy == nullptr) return;
  const CgroupDialect& dialect = DialectOf(hierarchy->version);
  for (const std::string& path : files::ListDeepestFirst(Directory(*hierarchy, name))) {
    (void)files::Write(path + "/" + dialect.freeze_file, dialect.thaw_value).ok();
  }
}

void CgroupTree::ThawVersion(uint64_t version_id) { ThawBelow(VersionName(version_id)); }

void CgroupTree::KillSlot(uint64_t version_id, uint16_t slot) {
  KillAll(SlotName(version_id, slot));
}

Result<JobCgroup> CgroupTree::CreateJob(const std::string& name, const SandboxLimits& limits) {
  if (name.empty() || name.find_first_of("/.") != std::string::npos) {
    return Error{Code::kInvalidArgument, 0, "cgroup of a job: bad name " + Printable(name)};
  }
  JobCgroup out;
  CgroupReport ignored;
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    if (!IsNeeded(hierarchy, limits) || IsOfVersion(hierarchy)) continue;
    const LimitTarget job{hierarchy, Directory(hierarchy, name)};
    Status status = MakeLimited(job, limits, DeviceNumber{}, ignored);
    if (status.ok()) status = AddJoin(job, out.join);
    if (!status.ok()) {
      (void)RemoveAll(name).ok();
      return status.error();
    }
    AddCounters(job, out.counters);
  }
  return out;
}

Status CgroupTree::RemoveJob(const std::string& name) { return RemoveAll(name); }

Status CgroupTree::Sweep() {
  const TimePoint deadline = std::chrono::steady_clock::now() + kSweepPatience;
  Duration pause = std::chrono::milliseconds(1);
  Status status;
  do {
    WaitForDeath(KillAll(""), deadline);
    status = Status();
    for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
      const std::string root = Directory(hierarchy, "");
      for (const std::string& path : files::ListDeepestFirst(root)) {
        if (path == root) continue;
        Status removed = files::RemoveDeepestFirst(path);
        if (!removed.ok()) status = std::move(removed);
      }
    }
    if (status.ok()) return status;
    // The dead leave their cgroup only when their parent reaps them, which nothing announces here.
    SleepBriefly(pause);
    pause = std::min<Duration>(pause * 2, std::chrono::milliseconds(50));
  } while (std::chrono::steady_clock::now() < deadline);
  return status;
}

Status CgroupTree::Remove() {
  PULGA_RETURN_IF_ERROR(Sweep());
  const Status removed = RemoveAll("");
  return removed.ok() ? removed : RemoveAll("");  // nobody else is coming to do it
}

std::string CgroupTree::SlotDirectory(CgroupController controller, uint64_t version_id,
                                      uint16_t slot) const {
  const CgroupHierarchy* hierarchy = layout_.Find(controller);
  return hierarchy == nullptr ? "" : Directory(*hierarchy, SlotName(version_id, slot));
}

std::string CgroupTree::SpawnerDirectory(CgroupController controller, uint64_t version_id) const {
  const CgroupHierarchy* hierarchy = layout_.Find(controller);
  return hierarchy == nullptr ? "" : Directory(*hierarchy, VersionName(version_id) + "/spawner");
}

Status EnterCgroupLeaf(const CgroupLayout& layout) {
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    if (!hierarchy.base_is_own) continue;
    const std::string leaf = hierarchy.base + "/" + std::string(kCgroupLeafName);
    PULGA_RETURN_IF_ERROR(files::Make(leaf));
    PULGA_RETURN_IF_ERROR(files::Write(leaf + "/cgroup.procs", "0"));
  }
  return OkStatus();
}

std::string CgroupTreeName(std::string_view data_dir) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : data_dir) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char name[32];
  snprintf(name, sizeof name, "pulga-%016llx", static_cast<unsigned long long>(hash));
  return name;
}

DeviceNumber DiskOf(int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0 || major(st.st_dev) == 0) return {};
  const std::string node =
      "/sys/dev/block/" + std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev));
  // Limits are set on whole disks; a partition's directory lies inside its disk's.
  const std::string file = files::Exists(node + "/partition") ? node + "/../dev" : node + "/dev";
  const auto text = ReadFile(file);
  if (!text.ok()) return {};
  const std::string_view line = std::string_view(*text).substr(0, text->find('\n'));
  const auto parts = Split(line, ':');
  if (parts.size() != 2) return {};
  const auto major_number = ParseUint(parts[0], UINT32_MAX);
  const auto minor_number = ParseUint(parts[1], UINT32_MAX);
  if (!major_number || !minor_number) return {};
  return {static_cast<uint32_t>(*major_number), static_cast<uint32_t>(*minor_number)};
}

}  // namespace pulga
