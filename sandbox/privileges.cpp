#include "sandbox/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/sys.h"

namespace pulga {
namespace {

// glibc's wrappers make every thread of the process follow; after clone there is one, and the
// machinery must not run. 32-bit ARM has 16-bit ids in the old calls.
#ifdef SYS_setresuid32
constexpr long kSetGroups = SYS_setgroups32;
constexpr long kSetResGid = SYS_setresgid32;
constexpr long kSetResUid = SYS_setresuid32;
#else
constexpr long kSetGroups = SYS_setgroups;
constexpr long kSetResGid = SYS_setresgid;
constexpr long kSetResUid = SYS_setresuid;
#endif

StepResult Failed(const char* step) { return {step, errno}; }

}  // namespace

StepResult DropBounding() {
  for (unsigned long cap = 0; cap <= 63; ++cap) {
    if (PULGA_SYS(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) continue;
    if (errno == EINVAL && cap > CAP_CHOWN) return {};  // past the kernel's last capability
    return Failed("drop-bounding");
  }
  return {};
}

StepResult LockSecurebits() {
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                  SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (PULGA_SYS(prctl, PR_SET_SECUREBITS, kBits, 0, 0, 0) != 0) return Failed("lock-securebits");
  return {};
}

StepResult SetIds(const Ids& ids) {
  if (PULGA_SYS(syscall, kSetGroups, ids.groups.size(), ids.groups.data()) != 0) {
    return Failed("set-groups");
  }
  if (PULGA_SYS(syscall, kSetResGid, ids.gid, ids.gid, ids.gid) != 0) return Failed("set-gid");
  if (PULGA_SYS(syscall, kSetResUid, ids.uid, ids.uid, ids.uid) != 0) return Failed("set-uid");
  return {};
}

StepResult NoNewPrivs() {
  if (PULGA_SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failed("no-new-privs");
  return {};
}

StepResult ClearAllCapabilities() {
  // Kernels before 4.3 have no ambient set to clear.
  if (PULGA_SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) {
    return Failed("clear-ambient");
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (PULGA_SYS(syscall, SYS_capset, &header, none) != 0) return Failed("clear-capabilities");
  return {};
}

}  // namespace pulga
