// Tries out single kernel facilities, each in a short-lived child where it could change the caller.
// Answers are errno values: 0 = works. Blocks for some milliseconds; leaves nothing behind.
#pragma once

#include <string>

namespace pulga::kernel_probes {

inline constexpr int kChildDied = -1;  // the probe's child was killed by a signal

int Namespace(int clone_flag);  // unprivileged callers: together with a user namespace
int SeccompFilter();            // loads the functions' own program
int OverlayInUserNamespace();   // with userxattr, as layers are mounted
int IdMappedMount();            // of the root file system; needs root
int OpenAt2();
int Clone3();
int PidFd();
int CloseRangeCloexec();
int LandlockVersion();                            // > 0: the ABI version, else -errno
int CloneIntoCgroup(const std::string& v2_base);  // needs root
int FileInNewCgroup(const std::string& v2_base, const std::string& file);  // needs root

}  // namespace pulga::kernel_probes
