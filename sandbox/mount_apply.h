// Carries out the lists of mount_plan.h, relative to the current directory, which is the new root.
// Async-signal-safe: for use between clone and execve. Stops at the first failure; what was mounted
// stays and goes with the mount namespace.
// Needs: a root nobody else can change meanwhile (read-only, or not yet reachable by anybody).
#pragma once

#include <span>

#include "sandbox/mount_plan.h"
#include "sandbox/privileges.h"

namespace pulga {

// `step` of a failure is the entry's own; the entries must outlive the result.
StepResult ApplyMounts(std::span<const MountEntry> entries);

}  // namespace pulga
