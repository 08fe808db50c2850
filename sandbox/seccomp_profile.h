// The seccomp programs of this build: what a function may ask of the kernel, and what its spawner
// may. Made from sandbox/syscalls.txt and sandbox/spawner_syscalls.txt by seccomp_compile; loaded
// with LoadSeccomp (base/seccomp.h). Static data, any thread.
// Source: docs/security.md, the default list.
#pragma once

#include <linux/filter.h>

#include <span>

namespace pulga {

// Allow list; the last thing an instance's set-up loads before execve.
std::span<const sock_filter> FunctionFilter();
// Deny list for a spawner once its version is built: no exec-time tools against the kernel (bpf,
// perf, modules, keys, ptrace, foreign mounts by handle), but clone, mount, execve and the sockets
// it needs for its instances stay.
std::span<const sock_filter> SpawnerFilter();

}  // namespace pulga
