// Loads a ready seccomp program into the calling thread. Programs are made at build time
// (cmake/seccomp.cmake); nothing here knows a system call's name.
// Async-signal-safe: no allocation, no errno of ours left behind.
// Needs: no_new_privs (or CAP_SYS_ADMIN in the own user namespace).
#pragma once

#include <linux/filter.h>

#include <span>

namespace pulga {

// 0 or the errno. A multi-threaded caller filters every thread of its process (TSYNC); ESRCH: one
// of them could not follow.
[[nodiscard]] int LoadSeccomp(std::span<const sock_filter> program);

// The same with a listener: whoever holds the descriptor this returns (CLOEXEC) hears of each call
// answered by SECCOMP_RET_USER_NOTIF, and answers it. -1 with errno: nothing was loaded; EINVAL
// before Linux 5.0, EBUSY when somebody listens to a filter above this one. Single-threaded callers
// only.
[[nodiscard]] int LoadSeccompWithListener(std::span<const sock_filter> program);

}  // namespace pulga
