// The cgroup mechanism: makes, limits, freezes, kills and removes the cgroups of versions and jobs.
// One file for v1, v2 and hybrids; what differs is data (cgroup_dialect.h).
// Layout: BASE/<tree>/v<version>/{spawner,slot-N} and BASE/<tree>/<job>, in every hierarchy in use.
// Launcher only, single thread; file writes in a kernel file system, off the request path (creating
// a slot costs about 0.4 ms). Needs root. On failure nothing made by the call is left behind.
// Law: no process is ever moved from outside (RCU wait); it joins itself (JoinCgroup) or is cloned
// into `v2_dir` with CLONE_INTO_CGROUP.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/cgroup_counters.h"
#include "sandbox/cgroup_dialect.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/cgroup_report.h"
#include "sandbox/kernel_features.h"
#include "sandbox/slot_cpu.h"
#include "sandbox/slot_freezer.h"
#include "sandbox/slot_memory.h"

namespace pulga {

// How a new process gets into a cgroup: clone3 with v2_dir where valid, then JoinCgroup(v1_tasks).
struct CgroupJoin {
  UniqueFd v2_dir;                 // O_PATH directory; invalid without a v2 hierarchy in use
  std::vector<UniqueFd> v1_tasks;  // write-only, opened by root: works from a user namespace
};

// The calling thread joins the v1 cgroups. 0 or the errno; async-signal-safe. Single-threaded
// callers only, and before unsharing the cgroup namespace (else the host-side name shows inside).
[[nodiscard]] int JoinCgroup(std::span<const int> v1_tasks);
// The same where memory may be allocated; an error names `step`.
Status JoinV1Cgroups(const CgroupJoin& join, const char* step);

struct SlotCgroup {
  CgroupJoin join;
  CounterFds counters;
  FreezerFds freezer;
  MemoryFds memory;
  CpuFds cpu;
};

struct VersionCgroups {
  CgroupJoin spawner;
  std::vector<SlotCgroup> slots;
  std::vector<std::string> warnings;  // limits this kernel does not enforce, in words
  Feature devices{"cgroup.devices", FeatureState::kAbsent, "", ""};  // what limits them
  std::vector<Feature> layers;  // all of it, for the isolation report
};

struct VersionCgroupOptions {
  uint64_t version_id = 0;
  uint16_t slots = 1;
  SandboxLimits limits;  // of each slot
  uint64_t spawner_memory_bytes = 32ULL << 20;
  uint32_t spawner_pids = 1024;
  uid_t spawner_uid = 0;  // v2: owns cgroup.procs of the version and its slots (law 1)
  DeviceNumber disk;      // for io limits
  std::vector<DeviceRule> devices = HarmlessDevices();  // which may be opened
  bool freezable = false;  // slots come with a freezer where the kernel has one
  bool metered = false;    // slots tell their use of processors
};

struct SlotResize {
  uint64_t version_id = 0;
  uint16_t slots = 0;
  SandboxLimits from;  // as they are in force
  SandboxLimits to;    // other memory_bytes and cpu_millis, nothing else
};

struct JobCgroup {
  CgroupJoin join;
  CounterFds counters;
};

class CgroupTree {
 public:
  // Makes BASE/<tree> everywhere and, on v2, enables the controllers down to it.
  static Result<std::unique_ptr<CgroupTree>> Open(std::string tree, CgroupLayout layout);

  Result<VersionCgroups> CreateVersion(const VersionCgroupOptions& options);
  // Removing asks for every process to be reaped already; what still lives is killed and the error
  // is kUnavailable: call again a little later. Removing what does not exist is fine.
  Status RemoveVersion(uint64_t version_id);

  // Blocks while the kernel makes room below a lower memory limit; EBUSY where some instance holds
  // too much for it: nothing is ever killed for a lower limit. On an error all have `from` again.
  struct Resized {
    enum class End : uint8_t { kDone, kAsBefore, kBetween } end = End::kDone;  // kBetween: not so
    int error = 0;
  };
  Resized ResizeSlots(const SlotResize& resize);

  // Whatever holds a slot's freezer: on v1 what is frozen cannot even be killed.
  void ThawVersion(uint64_t version_id);
  // What the path of each cgroup of ours holds.
  std::string mark() const { return "/" + tree_ + "/"; }

  // Second line of defence: PID 1 of the instance normally takes all of it along. Thaws.
  void KillSlot(uint64_t version_id, uint16_t slot);

  // A cgroup for one unpacker. `name` such as "unpack-7".
  Result<JobCgroup> CreateJob(const std::string& name, const SandboxLimits& limits);
  Status RemoveJob(const std::string& name);  // like RemoveVersion

  // Kills and removes everything below the tree, waiting a bounded time (start-up).
  Status Sweep();
  // Sweep and remove the tree's own directories; the last call.
  Status Remove();

  const CgroupLayout& layout() const { return layout_; }
  // Where the slot's memory files are, for people and tests.
  std::string SlotDirectory(CgroupController controller, uint64_t version_id, uint16_t slot) const;

  std::string SpawnerDirectory(CgroupController controller, uint64_t version_id) const;

 private:
  Status WriteSizes(const SlotResize& resize) const;
  Status MakeRoom(const SlotResize& resize) const;
  bool ReleaseBrakes(const SlotResize& resize) const;
  CgroupTree(std::string tree, CgroupLayout layout);
  std::string Directory(const CgroupHierarchy& hierarchy, const std::string& name) const;
  Status RemoveAll(const std::string& name);
  std::vector<UniqueFd> KillAll(const std::string& name);  // pidfds of what was alive
  void ThawBelow(const std::string& name);

  std::string tree_;
  CgroupLayout layout_;
};

// Of a cgroup that is new. kUnsupported or kPermission: this kernel, or what is around us, has no
// such limits.
Status ApplyDeviceLimits(const std::string& directory, const DeviceLimits& limits);
// Where the own cgroup is a delegated v2 one: moves the caller into the leaf kCgroupLeafName, which
// its children inherit. The keeper calls it first; does nothing elsewhere.
Status EnterCgroupLeaf(const CgroupLayout& layout);
// "pulga-<16 hex>", the same for the same directory.
std::string CgroupTreeName(std::string_view data_dir);
// The whole disk under an open file or directory; 0:0 (no single disk: btrfs, tmpfs, ...)
// otherwise.
DeviceNumber DiskOf(int fd);

}  // namespace pulga
