// What happens in an instance between clone and execve, and its PID 1 afterwards.
// Runs in a child that may share the spawner's memory: raw system calls only, no allocation, no
// lock, never returns. Every step that fails writes its name and errno into the slot record and
// ends the process: nothing is ever executed half confined. Order: cgroups, cgroup namespace,
// network namespace, mounts, working directory, limits, ids, capabilities, seccomp; then execve, or
// waiting for the wake message (parked).
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <span>
#include <string>
#include <vector>

#include "sandbox/exec_arguments.h"
#include "sandbox/landlock.h"
#include "sandbox/mount_plan.h"
#include "sandbox/privileges.h"
#include "sandbox/same_cpu.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawn_protocol.h"

namespace pulga {

// Common to all instances of a version; made once by the spawner.
struct ChildPlan {
  std::vector<MountEntry> mounts;
  std::vector<MountEntry> late_mounts;  // what a spare mount namespace still lacks
  Landlock fence;
  std::string working_dir;
  std::vector<std::string> working_dir_parts;  // below its own /tmp or /run: made there first
  std::string program;
  Ids ids;
  CapabilitySet capabilities = 0;  // by grant
  uint32_t nofile = 1024;
  InitKind init = InitKind::kPulga;
  std::span<const sock_filter> filter;
};

// One start.
struct ChildRun {
  const ChildPlan* plan = nullptr;
  ExecArguments* arguments = nullptr;
  SlotRecord* record = nullptr;
  std::span<const int> v1_tasks;
  int netns = -1;                   // -1: the spawner's own
  int mount_namespace = -1;         // -1: already in its own, nothing mounted yet
  int ruleset = -1;                 // of that mount namespace, where there is a fence
  int stdio[3] = {-1, -1, -1};      // cold
  int channel = -1;                 // of a frames version: becomes kChannelFd
  const SameCpu* stayed = nullptr;  // the caller narrowed its processors: undone before execve
  int wake = -1;                    // parked: says one byte when ready, then waits for kWake
};

// The entry for CloneChild; `run` is a ChildRun*.
void ChildMain(void* run);

uint64_t MonotonicNs();

}  // namespace pulga
