// The seccomp programs of this build: what a function may ask of the kernel, and what its spawner
// may. Made from sandbox/syscalls.txt and sandbox/spawner_syscalls.txt by seccomp_compile; loaded
// with LoadSeccomp (base/seccomp.h). Static data, any thread.
// Source: docs/security.md, the default list.
#pragma once

#include <linux/filter.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>

namespace pulga {

// The whole list of a function. What it is held to is the two below, one on top of the other, which
// answer every call as this one does: loading a short one for each instance costs 10 us, not 45.
std::span<const sock_filter> FunctionFilter();
// For a spawner once its version is built, and so for all it starts: a function's list, and the few
// calls that set an instance up.
std::span<const sock_filter> SpawnerFilter();
// The same, but for what it refuses it asks the listener it is loaded with (refusals.h).
std::span<const sock_filter> CountingSpawnerFilter();
// Takes those few back: the last thing an instance's set-up loads before execve.
std::span<const sock_filter> InstanceFilter();

// Whose calls a version's program makes: the board's, or those of 32-bit ARM on a 64-bit ARM board.
// Nothing but the program's own file says which (program_lookup.h), so no message can ask for more.
enum class ProgramAbi { kBoard, kArm32 };

// The three above for versions of kArm32: the same for the board's calls, which set instances up,
// and syscalls.txt for those of 32-bit ARM. Empty in builds for other machines, and so refused by
// the kernel.
std::span<const sock_filter> SpawnerFilterWithArm32();
std::span<const sock_filter> CountingSpawnerFilterWithArm32();
std::span<const sock_filter> InstanceFilterWithArm32();

// What a function may be refused, by number: the calls that are counted, and the errno of each. Not
// among them are those that are said not to exist.
struct RefusedCall {
  uint32_t number;
  int sys_errno;
  const char* name;
};
inline constexpr size_t kMostRefusedOfOneAbi = 80;
inline constexpr size_t kMaxRefusedCalls = 2 * kMostRefusedOfOneAbi;
std::span<const RefusedCall> RefusedCalls();
std::span<const RefusedCall> RefusedArm32Calls();  // by 32-bit ARM's numbers; empty but on arm64

}  // namespace pulga
