// What of the cgroup hierarchies an instance sees at /sys/fs/cgroup: its own cgroups, read-only, so
// that runtimes size heaps and thread pools by their limits. Mounted in its own cgroup namespace,
// whose roots they are. Pure.
// Source: cgroup_namespaces(7); the places are those Node (libuv) and Java look at.
#pragma once

#include <string>
#include <vector>

#include "sandbox/cgroup_layout.h"

namespace pulga {

struct CgroupView {
  std::string fstype;
  std::string options;               // v1: names the hierarchy
  std::string target;                // relative to the root: "sys/fs/cgroup/memory"
  std::vector<std::string> aliases;  // v1: "sys/fs/cgroup/cpuacct" where cpu,cpuacct are one
  bool of_version = false;           // mounted once, with the template; else by each instance
};

// Only hierarchies every instance has a cgroup of its own in, or its version.
std::vector<CgroupView> CgroupViews(const CgroupLayout& layout);

}  // namespace pulga
