#include "sandbox/mount_plan.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

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
                           {"dev/stderr", "/proc/self/fd/2"},
                           {"dev/shm", "/tmp"}};

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
  entry.step = "mount-proc";
  return entry;
}

MountEntry Tmp(const SandboxLimits& limits) {
  constexpr uint64_t kPage = 4096;
  constexpr uint64_t kFewestInodes = 64;
  // size=0 would mean unlimited.
  const uint64_t size = std::max(limits.tmp_bytes, kPage);
  MountEntry entry;
  entry.kind = MountKind::kMount;
  entry.source = "tmpfs";
  entry.target = "tmp";
  entry.fstype = "tmpfs";
  entry.flags = MS_NOSUID | MS_NODEV;  // exec stays: JNI and Python wheels unpack there
  entry.data = "mode=1777,size=" + std::to_string(size) +
               ",nr_inodes=" + std::to_string(std::max(size / kPage, kFewestInodes));
  entry.step = "mount-tmp";
  return entry;
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

std::vector<MountEntry> TemplateMounts() {
  std::vector<MountEntry> plan;
  plan.push_back({.kind = MountKind::kMount,
                  .source = "tmpfs",
                  .target = "dev",
                  .fstype = "tmpfs",
                  .flags = MS_NOSUID | MS_NOEXEC,
                  .data = "mode=755,size=16k,nr_inodes=32",
                  .step = "mount-dev"});
  for (const Device& device : kDevices) {
    plan.push_back({.kind = MountKind::kDevice,
                    .source = std::string("/dev/") + device.name,
                    .target = std::string("dev/") + device.name,
                    .device = makedev(1, device.minor),
                    .step = std::string("make-dev-") + device.name});
  }
  for (const Link& link : kLinks) {
    plan.push_back(
        {.kind = MountKind::kSymlink, .source = link.to, .target = link.name, .step = "link-dev"});
  }
  plan.push_back(
      {.kind = MountKind::kDirectory, .target = std::string(kMaskDirectory), .step = "make-mask"});
  plan.push_back({.kind = MountKind::kRemount,
                  .target = "dev",
                  .flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC,
                  .step = "lock-dev"});
  return plan;
}

std::vector<MountEntry> SpawnerMounts() { return {Proc()}; }

std::vector<MountEntry> InstanceMounts(const SandboxLimits& limits,
                                       const std::vector<ProcEntry>& proc) {
  std::vector<MountEntry> plan = {Proc()};
  for (const ProcEntry& entry : proc) {
    // Real root's alone: an id of a user namespace cannot open it anyway (proven by test).
    if (!entry.readable_by_others) continue;
    plan.push_back({.kind = MountKind::kBind,
                    .source = entry.directory ? "/" + std::string(kMaskDirectory) : "/dev/null",
                    .target = "proc/" + entry.name,
                    .step = "mask-proc"});
  }
  plan.push_back(Tmp(limits));
  return plan;
}

}  // namespace pulga
