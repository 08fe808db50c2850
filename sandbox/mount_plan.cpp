#include "sandbox/mount_plan.h"

#include <dirent.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <set>

#include "base/file_io.h"

namespace pulga {
namespace {

constexpr unsigned long kInert = MS_NOSUID | MS_NODEV | MS_NOEXEC;

struct Device {
  const char* name;
  unsigned minor;  // all of major 1
};
constexpr Device kDevices[] = {
    {"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}};

struct Link {
  const char* name;
  const char* to;
};
constexpr Link kLinks[] = {{"dev/fd", "/proc/self/fd"},
                           {"dev/stdin", "/proc/self/fd/0"},
                           {"dev/stdout", "/proc/self/fd/1"},
                           {"dev/stderr", "/proc/self/fd/2"}};

// glibc counts the directories cpuN, allocators and Java look at the pages' size.
constexpr const char* kShownInSys[] = {
    "devices/system/cpu/online",
    "devices/system/cpu/possible",
    "devices/system/cpu/present",
    "kernel/mm/transparent_hugepage/enabled",
    "kernel/mm/transparent_hugepage/shmem_enabled",
    "kernel/mm/transparent_hugepage/hpage_pmd_size",
};
constexpr const char* kProcessors = "devices/system/cpu";
constexpr size_t kMostProcessors = 4096;

constexpr uint64_t kRunBytes = 1 << 20;
constexpr uint64_t kMostShmBytes = 64 << 20;

// Union of what the known container engines mask; everything else in proc is only made read-only.
constexpr const char* kHiddenInProc[] = {"acpi",       "asound",        "interrupts",  "kcore",
                                         "keys",       "latency_stats", "sched_debug", "scsi",
                                         "timer_list", "timer_stats"};

MountEntry Proc() {
  MountEntry entry;
  entry.kind = MountKind::kMount;
  entry.source = "proc";
  entry.target = "proc";
  entry.fstype = "proc";
  entry.flags = kInert | MS_RDONLY;
  entry.magic = PROC_SUPER_MAGIC;
  entry.step = "mount-proc";
  return entry;
}

struct Scratch {
  const char* target;
  const char* step;
  unsigned long flags;
  uint64_t bytes;
  std::string owner;  // mode, and uid and gid
};

MountEntry Tmpfs(const Scratch& scratch) {
  constexpr uint64_t kPage = 4096;
  constexpr uint64_t kFewestInodes = 64;
  // size=0 would mean unlimited.
  const uint64_t size = std::max(scratch.bytes, kPage);
  MountEntry entry;
  entry.kind = MountKind::kMount;
  entry.source = "tmpfs";
  entry.target = scratch.target;
  entry.fstype = "tmpfs";
  entry.flags = scratch.flags;
  entry.data = scratch.owner + ",size=" + std::to_string(size) +
               ",nr_inodes=" + std::to_string(std::max(size / kPage, kFewestInodes));
  entry.step = scratch.step;
  return entry;
}

std::string OwnedBy(const char* mode, uid_t uid, gid_t gid) {
  return std::string("mode=") + mode + ",uid=" + std::to_string(uid) +
         ",gid=" + std::to_string(gid);
}

bool IsProcessor(const std::string& name) {
  return name.size() > 3 && name.starts_with("cpu") &&
         std::all_of(name.begin() + 3, name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

void AddProcessors(const std::string& sys_dir, std::vector<SysEntry>& entries) {
  DIR* dir = opendir((sys_dir + "/" + kProcessors).c_str());
  if (dir == nullptr) return;
  while (const dirent* entry = readdir(dir)) {
    if (entries.size() == kMostProcessors) break;
    const std::string name = entry->d_name;
    if (IsProcessor(name)) entries.push_back({std::string(kProcessors) + "/" + name, true});
  }
  closedir(dir);
}

// "a/b/c" -> mkdir a, a/b; what is made already is left out.
void AddParents(const std::string& path, std::set<std::string>& made,
                std::vector<MountEntry>& plan) {
  for (size_t at = path.find('/'); at != std::string::npos; at = path.find('/', at + 1)) {
    std::string parent = path.substr(0, at);
    if (!made.insert(parent).second) continue;
    plan.push_back(
        {.kind = MountKind::kDirectory, .target = std::move(parent), .step = "make-sys"});
  }
}

void AddSys(const TemplateMountOptions& options, std::vector<MountEntry>& plan) {
  const std::vector<SysEntry>& entries = options.sys;
  const std::vector<CgroupView>& views = options.views;
  const std::string& version_cgroup = options.version_cgroup;
  std::set<std::string> made = {"sys"};
  // A page for each file, an inode for each entry and its parents, which are few.
  const std::string size = "mode=755,nr_blocks=" + std::to_string(entries.size() + 8) +
                           ",nr_inodes=" + std::to_string(entries.size() + 8 * views.size() + 32);
  plan.push_back({.kind = MountKind::kMount,
                  .source = "tmpfs",
                  .target = "sys",
                  .fstype = "tmpfs",
                  .flags = kInert,
                  .data = size,
                  .step = "mount-sys"});
  for (const SysEntry& entry : entries) {
    const std::string path = "sys/" + entry.path;
    AddParents(entry.directory ? path + "/" : path, made, plan);
    if (entry.directory) continue;
    plan.push_back(
        {.kind = MountKind::kFile, .target = path, .data = entry.text, .step = "make-sys"});
  }
  AddParents("sys/fs/cgroup/", made, plan);
  for (const CgroupView& view : views) {
    AddParents(view.target + "/", made, plan);
    const std::string name = view.target.substr(view.target.rfind('/') + 1);
    for (const std::string& alias : view.aliases) {
      plan.push_back(
          {.kind = MountKind::kSymlink, .source = name, .target = alias, .step = "make-sys"});
    }
    if (!view.of_version) continue;
    plan.push_back({.kind = MountKind::kBind,
                    .source = version_cgroup,
                    .target = view.target,
                    .flags = kInert | MS_RDONLY,
                    .step = "mount-cgroup"});
  }
  plan.push_back({.kind = MountKind::kRemount,
                  .target = "sys",
                  .flags = MS_REMOUNT | MS_BIND | MS_RDONLY | kInert,
                  .step = "lock-sys"});
}

}  // namespace

std::vector<ProcEntry> ReadProcEntries(const std::string& proc_dir) {
  std::vector<ProcEntry> entries;
  for (const char* name : kHiddenInProc) {
    struct stat st = {};
    if (lstat((proc_dir + "/" + name).c_str(), &st) != 0) continue;
    ProcEntry entry;
    entry.name = name;
    entry.directory = S_ISDIR(st.st_mode);
    entry.readable_by_others = (st.st_mode & (entry.directory ? 0005 : 0004)) != 0;
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::vector<SysEntry> ReadSysEntries(const std::string& sys_dir) {
  std::vector<SysEntry> entries;
  for (const char* path : kShownInSys) {
    auto text = ReadFile(sys_dir + "/" + path);
    if (text.ok()) entries.push_back({path, false, std::move(*text)});
  }
  AddProcessors(sys_dir, entries);
  return entries;
}

std::vector<MountEntry> TemplateMounts(const TemplateMountOptions& options) {
  std::vector<MountEntry> plan;
  plan.push_back({.kind = MountKind::kMount,
                  .source = "tmpfs",
                  .target = "dev",
                  .fstype = "tmpfs",
                  .flags = MS_NOSUID | MS_NOEXEC,
                  .data = "mode=755,size=16k,nr_inodes=128",
                  .step = "mount-dev"});
  for (const Device& device : kDevices) {
    plan.push_back({.kind = MountKind::kDevice,
                    .source = std::string("/dev/") + device.name,
                    .target = std::string("dev/") + device.name,
                    .device = makedev(1, device.minor),
                    .step = std::string("make-dev-") + device.name});
  }
  plan.insert(plan.end(), options.devices.begin(), options.devices.end());
  for (const Link& link : kLinks) {
    plan.push_back(
        {.kind = MountKind::kSymlink, .source = link.to, .target = link.name, .step = "link-dev"});
  }
  plan.push_back(
      {.kind = MountKind::kDirectory, .target = std::string(kMaskDirectory), .step = "make-mask"});
  plan.push_back({.kind = MountKind::kDirectory, .target = "dev/shm", .step = "make-shm"});
  plan.push_back({.kind = MountKind::kRemount,
                  .target = "dev",
                  .flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC,
                  .step = "lock-dev"});
  AddSys(options, plan);
  return plan;
}

std::vector<MountEntry> SpawnerMounts() { return {Proc()}; }

std::vector<MountEntry> InstanceMounts(const InstanceMountOptions& options) {
  std::vector<MountEntry> plan = {Proc()};
  for (const ProcEntry& entry : options.proc) {
    // Real root's alone: an id of a user namespace cannot open it anyway (proven by test).
    if (!entry.readable_by_others) continue;
    plan.push_back({.kind = MountKind::kBind,
                    .source = entry.directory ? "/" + std::string(kMaskDirectory) : "/dev/null",
                    .target = "proc/" + entry.name,
                    .step = "mask-proc"});
  }
  for (const CgroupView& view : options.views) {
    if (view.of_version) continue;
    plan.push_back({.kind = MountKind::kMount,
                    .source = view.fstype,
                    .target = view.target,
                    .fstype = view.fstype,
                    .flags = kInert | MS_RDONLY,
                    .data = view.options,
                    .step = "mount-cgroup"});
  }
  const SandboxLimits& limits = options.limits;
  constexpr unsigned long kSafe = MS_NOSUID | MS_NODEV;
  // Exec stays: JNI and Python wheels unpack there.
  plan.push_back(Tmpfs({"tmp", "mount-tmp", kSafe, limits.tmp_bytes, OwnedBy("1777", 0, 0)}));
  plan.push_back(
      Tmpfs({"run", "mount-run", kInert, kRunBytes, OwnedBy("755", options.uid, options.gid)}));
  if (options.secrets) {
    plan.push_back({.kind = MountKind::kSymlink,
                    .source = kSecretsDirectory,
                    .target = kSecretsAlias + 1,
                    .step = "link-secrets"});
  }
  plan.push_back(Tmpfs({"dev/shm", "mount-shm", kInert,
                        std::min(kMostShmBytes, limits.memory_bytes), OwnedBy("1777", 0, 0)}));
  return plan;
}

}  // namespace pulga
