// One clone into new namespaces (and, on v2, straight into a cgroup) that runs a function.
// kVfork shares the caller's memory and stops the caller until the child has exec'ed or ended: the
// function must only make system calls and never return; nothing is copied. kFork copies. kShare is
// kVfork without the stop: the caller must leave alone what the child uses (one at a time).
// Single-threaded callers only. Needs the privilege of the namespaces asked for.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace pulga {

enum class CloneMemory : uint8_t { kVfork, kFork, kShare };

struct CloneOptions {
  uint64_t flags = 0;  // CLONE_NEW*, CLONE_PARENT
  CloneMemory memory = CloneMemory::kFork;
  int cgroup_fd = -1;    // v2: CLONE_INTO_CGROUP
  int exit_signal = 17;  // SIGCHLD; 0 with CLONE_PARENT
};

using CloneEntry = void (*)(void* argument);

// The child's pid in the caller's pid namespace, or -1 with errno.
pid_t CloneChild(const CloneOptions& options, CloneEntry entry, void* argument);

// For a caller whose seccomp list has no clone3: the same, without namespaces or cgroup.
pid_t CloneProgram(CloneMemory memory, CloneEntry entry, void* argument);

}  // namespace pulga
