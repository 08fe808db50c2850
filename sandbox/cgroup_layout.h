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
enum class CgroupController : uint8_t { kMemory, kCpu, kCpuacct, kPids, kFreezer, kIo };
inline constexpr int kCgroupControllers = 6;

std::string_view ControllerName(CgroupController controller);  // "memory", ... "io"

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
  bool v2_own_delegated = false;   // systemd's delegate mark on the own cgroup
};

struct CgroupHierarchy {
  CgroupVersion version = CgroupVersion::kV1;
  std::vector<CgroupController> controllers;
  std::string base;          // absolute directory our tree is made in
  bool base_is_own = false;  // v2: our own processes must leave it for the leaf first
};

struct CgroupLayout {
  std::vector<CgroupHierarchy> hierarchies;
  std::vector<std::string> warnings;  // optional controllers this kernel lacks, in words

  const CgroupHierarchy* Find(CgroupController controller) const;
};

// What there is, whatever is missing; for doctor. `warnings` names every lack.
CgroupLayout FindControllers(const CgroupSnapshot& snapshot);
// kUnsupported when memory or pids is missing: without them nothing may run.
Result<CgroupLayout> PlanCgroupLayout(const CgroupSnapshot& snapshot);
std::vector<CgroupMount> ParseCgroupMounts(std::string_view mountinfo);

Result<CgroupSnapshot> ReadCgroupSnapshot();

}  // namespace pulga
