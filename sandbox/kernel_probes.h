// Tries out single kernel facilities, each in a short-lived child where it could change the caller.
// Answers are errno values: 0 = works. Blocks for some milliseconds; leaves nothing behind.
#pragma once

#include <string>

#include "sandbox/cgroup_layout.h"

namespace pulga::kernel_probes {

inline constexpr int kChildDied = -1;  // the probe's child was killed by a signal

int Namespace(int clone_flag);  // unprivileged callers: together with a user namespace
int SeccompFilter();            // loads the functions' own program
int FilterListener();           // the same, with somebody who hears what it refuses
int OverlayInUserNamespace();   // with userxattr, as layers are mounted
int IdMappedMount();            // of the root file system; needs root
int OpenAt2();
int Clone3();
int PidFd();
int CloseRangeCloexec();
int LandlockVersion();                            // > 0: the ABI version, else -errno
int AppArmorProfile();                            // ENOENT: not loaded; ENODEV: no AppArmor
int CloneIntoCgroup(const std::string& v2_base);  // needs root
// That a new cgroup of the hierarchy takes the limits every version's devices get; needs root.
int DeviceLimits(const CgroupHierarchy& hierarchy);
int FileInNewCgroup(const std::string& v2_base, const std::string& file);  // needs root

}  // namespace pulga::kernel_probes
