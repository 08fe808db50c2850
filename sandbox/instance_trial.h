// What a spawner finds out by a child in all the namespaces of an instance, once, before it says
// ready: that each namespace really is another, that the root cannot be written to, and which
// cgroup views this kernel mounts. On failure no instance is ever started.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "sandbox/cgroup_view.h"
#include "sandbox/kernel_features.h"

namespace pulga {

// What every instance is cloned into, beside those that may be spare (spare_namespaces.h).
inline constexpr uint64_t kInstanceNamespaces = CLONE_NEWPID | CLONE_NEWUTS;

struct InstanceTrial {
  std::vector<CgroupView> views;  // those this kernel mounts
  size_t refused_views = 0;
  std::vector<Feature> layers;  // namespaces and root, for the isolation report
};

// What such a child has seen, and its parent; by kNamespacesSeen.
struct NamespaceIds {
  ino_t ids[5] = {};
};
inline constexpr const char* kNamespacesSeen[] = {"mnt", "pid", "uts", "ipc", "cgroup"};
struct InstanceSight {
  NamespaceIds own;
  uint64_t root_flags = 0;  // as statvfs says
};
// Pure. The layers of namespaces; kPermission: a wall does not stand.
Result<std::vector<Feature>> JudgeInstance(const InstanceSight& seen, const NamespaceIds& spawners);

// kPermission: a wall does not stand.
Result<InstanceTrial> TryInstance(const std::vector<CgroupView>& views);

}  // namespace pulga
