// A process leaves the host's root for another one, for good. By pivot_root; where the old root is
// the first one the kernel mounted (a system that runs from its initramfs and never did
// switch_root) that call refuses, and the new root is moved over the old one, as switch_root(8)
// does, and all else that was mounted there is detached. The old root then stays beneath, without a
// path: ".." from the new one ends there, whatever is done with chroot, and in a user namespace
// made afterwards the kernel holds the upper mount fast. Blocks: no. Needs: CAP_SYS_ADMIN and
// CAP_SYS_CHROOT, private mounts. On failure the process must end: it may stand in between.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

enum class RootSwitch { kPivoted, kMovedOver };

// The current directory, a mount point, becomes "/". `mountinfo_fd`: /proc/self/mountinfo, opened
// in this mount namespace. Errors name the step.
Result<RootSwitch> SwitchRoot(int mountinfo_fd);

// Of a text of mountinfo(5): whether "/" is the mount everything else hangs on. It alone has no
// parent, and pivot_root moves only what has one.
bool IsFirstRoot(std::string_view mountinfo);
// What hangs on that one and not on a mount over "/", in the order to detach it.
std::vector<std::string> MountsBeside(std::string_view mountinfo);

}  // namespace pulga
