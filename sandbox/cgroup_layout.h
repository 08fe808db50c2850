// Which cgroup hierarchy carries which controller, and below which directory our own tree goes.
// Pure: a snapshot of what the kernel shows in, a layout out. Boards in the field have v1, v2 and
// hybrids, so the choice is made per controller; v1 wins where a controller is mounted as v1.
// Source: cgroups(7), kernel Documentation/admin-guide/cgroup-{v1,v2}, systemd's delegation page.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

enum class CgroupVersion : uint8_t { kV1 = 1, kV2 = 2 };
enum class CgroupController : uint8_t {
  kMemory,
  kCpu,
  kCpuacct,
  kPids,
  kFreezer,
  kIo,
  kCpuset,
  kDevices
};
inline constexpr int kCgroupControllers = 8;

std::string_view ControllerName(CgroupController controller);  // "memory", ... "devices"
// kCpuset limits nothing: without a cgroup of one's own in every v1 hierarchy it looks at, Java
// believes the board is all its own.

// Where the keeper puts itself in a delegated v2 cgroup, so that the rest may have controllers.
inline constexpr std::string_view kCgroupLeafName = "pulga-main";

struct CgroupMount {
  CgroupVersion version = CgroupVersion::kV1;
  std::vector<std::string> controllers;  // v1: as in the mount options
  std::string mount_point;
  std::string mount_root;  // what of the hierarchy is mounted there, "/" = all
};

// What the kernel says. Read by ReadCgroupSnapshot, or written down by a test.
struct CgroupSnapshot {
  std::string mountinfo;           // text of /proc/self/mountinfo
  std::string self_cgroup;         // text of /proc/self/cgroup
  std::string v2_top_controllers;  // cgroup.controllers at the mount point
  std::string v2_own_controllers;  // cgroup.controllers of the own cgroup
  bool v2_top_is_root = true;      // the mount point is the real root (has no cgroup.type)
  bool v2_own_delegated = false;   // given to us: by systemd's mark, or (of_user) it is ours
  bool of_user = false;            // not root of the host: only what was given can be used
};

struct CgroupHierarchy {
  CgroupVersion version = CgroupVersion::kV1;
  std::vector<CgroupController> controllers;
  std::string base;                // absolute directory our tree is made in
  bool base_is_own = false;        // v2: our own processes must leave it for the leaf first
  std::string mount_options = {};  // v1: what names it to mount(2): "cpu,cpuacct"
};

// Limits nothing: the spawner's own cgroup serves its instances too, who are born in it.
bool IsOfVersion(const CgroupHierarchy& hierarchy);

struct CgroupLayout {
  std::vector<CgroupHierarchy> hierarchies;
  std::vector<std::string> warnings;  // controllers that are lacking, in words
  bool of_user = false;               // nothing needs to be there (CgroupSnapshot::of_user)

  const CgroupHierarchy* Find(CgroupController controller) const;
};

// What there is, whatever is missing; for doctor. `warnings` names every lack.
CgroupLayout FindControllers(const CgroupSnapshot& snapshot);
// kUnsupported when memory or pids is missing: without them nothing may run, but for a user, whose
// functions need somebody's word for it (allow_unenforced).
Result<CgroupLayout> PlanCgroupLayout(const CgroupSnapshot& snapshot);
std::vector<CgroupMount> ParseCgroupMounts(std::string_view mountinfo);

// Directories of the cgroups whose memory.min together says how much of the daemon's memory stays,
// from its own (without the leaf, which gets what that one has) to below the top. None where the
// memory controller is not v2: v1 has no such thing.
std::vector<std::string> MemoryMinChain(const CgroupSnapshot& snapshot);

// Whose processes are to go there. kOwn: root's on a host, a user's in a user namespace.
enum class CgroupsFor : uint8_t { kOwn, kUser };
Result<CgroupSnapshot> ReadCgroupSnapshot(CgroupsFor whose = CgroupsFor::kOwn);
// What a user without a cgroup of its own can do about it.
inline constexpr const char* kHowToDelegate =
    "start it in a cgroup of its own: systemd-run --user --scope -p Delegate=yes pulga serve";

}  // namespace pulga
