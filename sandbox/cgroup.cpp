#include "sandbox/cgroup.h"

#include <fcntl.h>
#include <poll.h>
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

namespace pulga {
namespace {

namespace files = cgroup_files;

constexpr Duration kSweepPatience = std::chrono::seconds(3);

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

// v2: what the cgroups below `directory` may use. Nothing to do on v1.
Status EnableControllers(const CgroupHierarchy& hierarchy, const std::string& directory) {
  if (hierarchy.version == CgroupVersion::kV1) return OkStatus();
  const auto present = ReadFile(directory + "/cgroup.subtree_control");
  const std::string enabled = " " + (present.ok() ? *present : std::string());
  std::string wanted;
  for (const CgroupController controller : hierarchy.controllers) {
    if (controller == CgroupController::kCpuacct || controller == CgroupController::kFreezer) {
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

// One limit. A missing file is a warning where the dialect says so; a refused value is an error,
// but for io: stacked disks have the file and no throttling.
Status ApplyWrite(const std::string& directory, const CgroupWrite& write,
                  std::vector<std::string>& warnings) {
  const std::string path = directory + "/" + write.file;
  if (!write.file.empty() && (write.need == WriteNeed::kMust || files::Exists(path))) {
    Status status = files::Write(path, write.value);
    if (status.ok() || write.controller != CgroupController::kIo) return status;
  }
  if (!write.lacking.empty()) warnings.push_back(write.lacking);
  return OkStatus();
}

struct LimitTarget {
  const CgroupHierarchy& hierarchy;
  std::string directory;
};

Status MakeLimited(const LimitTarget& target, const SandboxLimits& limits, DeviceNumber disk,
                   std::vector<std::string>& warnings) {
  PULGA_RETURN_IF_ERROR(files::Make(target.directory));
  for (const CgroupWrite& write : LimitWrites(target.hierarchy.version, limits, disk)) {
    if (!Carries(target.hierarchy, write.controller)) continue;
    PULGA_RETURN_IF_ERROR(ApplyWrite(target.directory, write, warnings));
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
  for (const CgroupWrite& write : V2LimitWrites(limits, DeviceNumber{1, 0})) {
    if (layout.Find(write.controller) == nullptr && !write.lacking.empty()) {
      warnings.push_back(write.lacking);
    }
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

// One version in one hierarchy.
Status CreateIn(const CgroupHierarchy& hierarchy, const std::string& directory,
                const VersionCgroupOptions& options, VersionCgroups& out) {
  const LimitTarget version{hierarchy, directory};
  PULGA_RETURN_IF_ERROR(files::Make(directory));
  PULGA_RETURN_IF_ERROR(EnableControllers(hierarchy, directory));
  PULGA_RETURN_IF_ERROR(GiveProcs(version, options.spawner_uid));
  const LimitTarget spawner{hierarchy, directory + "/spawner"};
  std::vector<std::string> ignored;
  PULGA_RETURN_IF_ERROR(MakeLimited(spawner, SpawnerLimits(options), options.disk, ignored));
  PULGA_RETURN_IF_ERROR(AddJoin(spawner, out.spawner));
  for (uint16_t i = 0; i < options.slots; ++i) {
    const LimitTarget slot{hierarchy, directory + "/slot-" + std::to_string(i)};
    PULGA_RETURN_IF_ERROR(MakeLimited(slot, options.limits, options.disk, out.warnings));
    PULGA_RETURN_IF_ERROR(GiveProcs(slot, options.spawner_uid));
    PULGA_RETURN_IF_ERROR(AddJoin(slot, out.slots[i].join));
    AddCounters(slot, out.slots[i].counters);
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

int JoinCgroup(std::span<const int> v1_tasks) {
  for (const int fd : v1_tasks) {
    if (PULGA_SYS(write, fd, "0", 1) != 1) return errno;
  }
  return 0;
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
    PULGA_RETURN_IF_ERROR(files::Make(out->Directory(hierarchy, "")));
    PULGA_RETURN_IF_ERROR(EnableControllers(hierarchy, out->Directory(hierarchy, "")));
  }
  undo.Dismiss();
  return out;
}

Result<VersionCgroups> CgroupTree::CreateVersion(const VersionCgroupOptions& options) {
  VersionCgroups out;
  out.slots.resize(options.slots);
  const std::string name = VersionName(options.version_id);
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    if (!IsNeeded(hierarchy, options.limits)) continue;
    Status status = CreateIn(hierarchy, Directory(hierarchy, name), options, out);
    if (status.ok()) continue;
    const Status removed = RemoveAll(name);
    if (!removed.ok()) LogWarning(removed.error().message);
    return status.error();
  }
  WarnOfMissing(layout_, options.limits, out.warnings);
  DropRepeats(out.warnings);
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
    for (UniqueFd& fd : files::KillProcesses(directory, "/" + tree_ + "/")) {
      pidfds.push_back(std::move(fd));
    }
    // What forks faster than it is listed; v2 only.
    const std::string kill = directory + "/" + dialect.kill_file;
    if (!dialect.kill_file.empty() && files::Exists(kill)) (void)files::Write(kill, "1").ok();
  }
  // A frozen process dies once it is thawed.
  if (const CgroupHierarchy* hierarchy = layout_.Find(CgroupController::kFreezer)) {
    const CgroupDialect& dialect = DialectOf(hierarchy->version);
    for (const std::string& path : files::ListDeepestFirst(Directory(*hierarchy, name))) {
      (void)files::Write(path + "/" + dialect.freeze_file, dialect.thaw_value).ok();
    }
  }
  return pidfds;
}

Status CgroupTree::RemoveVersion(uint64_t version_id) { return RemoveAll(VersionName(version_id)); }

Status CgroupTree::WriteFreezer(uint64_t version_id, uint16_t slot, FreezerState state) {
  const CgroupHierarchy* hierarchy = layout_.Find(CgroupController::kFreezer);
  if (hierarchy == nullptr) {
    return Error{Code::kUnsupported, 0, "freeze: this kernel has no cgroup freezer"};
  }
  const CgroupDialect& dialect = DialectOf(hierarchy->version);
  return files::Write(Directory(*hierarchy, SlotName(version_id, slot)) + "/" + dialect.freeze_file,
                      state == FreezerState::kFrozen ? dialect.freeze_value : dialect.thaw_value);
}

Status CgroupTree::Freeze(uint64_t version_id, uint16_t slot) {
  return WriteFreezer(version_id, slot, FreezerState::kFrozen);
}

Status CgroupTree::Thaw(uint64_t version_id, uint16_t slot) {
  return WriteFreezer(version_id, slot, FreezerState::kThawed);
}

void CgroupTree::KillSlot(uint64_t version_id, uint16_t slot) {
  KillAll(SlotName(version_id, slot));
}

Result<JobCgroup> CgroupTree::CreateJob(const std::string& name, const SandboxLimits& limits) {
  if (name.empty() || name.find_first_of("/.") != std::string::npos) {
    return Error{Code::kInvalidArgument, 0, "cgroup of a job: bad name " + Printable(name)};
  }
  JobCgroup out;
  std::vector<std::string> warnings;
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    if (!IsNeeded(hierarchy, limits)) continue;
    const LimitTarget job{hierarchy, Directory(hierarchy, name)};
    Status status = MakeLimited(job, limits, DeviceNumber{}, warnings);
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
  return RemoveAll("");
}

std::string CgroupTree::SlotDirectory(CgroupController controller, uint64_t version_id,
                                      uint16_t slot) const {
  const CgroupHierarchy* hierarchy = layout_.Find(controller);
  return hierarchy == nullptr ? "" : Directory(*hierarchy, SlotName(version_id, slot));
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
