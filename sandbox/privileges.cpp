#include "sandbox/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "base/sys.h"
#include "base/unique_fd.h"

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

StepResult DropBounding(CapabilitySet but) {
  for (unsigned long cap = 0; cap <= 63; ++cap) {
    if ((but >> cap & 1) != 0) continue;
    if (PULGA_SYS(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) continue;
    if (errno == EINVAL && cap > CAP_CHOWN) return {};  // past the kernel's last capability
    return Failed("drop-bounding");
  }
  return {};
}

StepResult LockSecurebits(CapabilitySet keep) {
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED;
  constexpr unsigned long kNoAmbient =
      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  const unsigned long bits = keep == 0 ? kBits | kNoAmbient : kBits;
  if (PULGA_SYS(prctl, PR_SET_SECUREBITS, bits, 0, 0, 0) != 0) return Failed("lock-securebits");
  return {};
}

StepResult SetIds(const Ids& ids) {
  if (!ids.keep_groups &&
      PULGA_SYS(syscall, kSetGroups, ids.groups.size(), ids.groups.data()) != 0) {
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

StepResult KeepCapabilities(CapabilitySet keep) {
  // Kernels before 4.3 have no ambient set to clear.
  if (PULGA_SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) {
    return Failed("clear-ambient");
  }
  if (PULGA_SYS(sys::SetCapabilities, keep, keep) != 0) return Failed("clear-capabilities");
  for (unsigned long cap = 0; keep >> cap != 0; ++cap) {
    if ((keep >> cap & 1) == 0) continue;
    if (PULGA_SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) != 0) {
      return Failed("raise-ambient");
    }
  }
  return {};
}

Status SetOomScore(int score) {
  char text[16];
  const int size = snprintf(text, sizeof text, "%d", score);
  const UniqueFd fd(PULGA_SYS(open, "/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return LastError("oom-score: open /proc/self/oom_score_adj");
  // EACCES: less than it has to stay at, so it is no more spared than asked for.
  const ssize_t n = PULGA_SYS(write, fd.get(), text, static_cast<size_t>(size));
  if (n < 0 && errno != EACCES) return LastError("oom-score: write /proc/self/oom_score_adj");
  return OkStatus();
}

}  // namespace pulga
