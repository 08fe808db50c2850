// The seccomp programs of this build: what a function may ask of the kernel, and what its spawner
// may. Made from sandbox/syscalls.txt and sandbox/spawner_syscalls.txt by seccomp_compile; loaded
// with LoadSeccomp (base/seccomp.h). Static data, any thread.
// Source: docs/security.md, the default list.
#pragma once

#include <linux/filter.h>

#include <span>

namespace pulga {

// The whole list of a function. What it is held to is the two below, one on top of the other, which
// answer every call as this one does: loading a short one for each instance costs 10 us, not 45.
std::span<const sock_filter> FunctionFilter();
// For a spawner once its version is built, and so for all it starts: a function's list, and the few
// calls that set an instance up.
std::span<const sock_filter> SpawnerFilter();
// Takes those few back: the last thing an instance's set-up loads before execve.
std::span<const sock_filter> InstanceFilter();

}  // namespace pulga
