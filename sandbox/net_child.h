// How the launcher's helpers for the network begin: in a cgroup of their kind, their descriptors at
// 3, 4, 5 ..., their id if they have one of their own, nothing else of the launcher's. In a forked
// child only.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "sandbox/cgroup.h"

namespace pulga {

enum class NetHelper : uint8_t { kAdmin, kRouter };

// Of the cgroup of each kind, "netadmin" and "router".
const char* CgroupNameOf(NetHelper helper);
SandboxLimits LimitsOf(NetHelper helper);

struct NetChild {
  int program_fd = -1;
  std::string name;
  std::vector<std::string> arguments;
  const CgroupJoin* cgroup = nullptr;  // on v2 it was cloned into it
  std::vector<int> fds;                // -1: /dev/null
  size_t answer = 0;        // which of them is told, as net/net_job.h has it, why it did not begin
  std::optional<uid_t> id;  // and no capability, ever; without it root stays root
};

// Becomes the program; returns an exit status only when that failed, having said why.
int ExecNetChild(const NetChild& child);

}  // namespace pulga
