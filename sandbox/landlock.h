// A second fence around an instance's files, beside its mounts: Landlock. Below the root it may
// read and execute; write, make, rename and remove only below the places named. It holds even where
// a mount were writable by mistake, and where the kernel can, nobody outside is reached through
// abstract unix sockets (instances of an exec version share a network namespace).
// Async-signal-safe but for Init. A ruleset names directories as they are in one mount namespace:
// it is made where they are mounted. A version with TCP rules of its own would give them here.
// Source: kernel Documentation/userspace-api/landlock.rst.
#pragma once

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "sandbox/privileges.h"

namespace pulga {

// 0: this kernel has none, errno says why (ENOSYS: not built in, EOPNOTSUPP: not enabled at boot).
int LandlockVersion();
// The first version refuses every rename between directories, which programs do not expect.
inline constexpr int kLandlockUsable = 2;

class Landlock {
 public:
  // `writable`: absolute paths of directories; one that is missing is left out. Makes nothing where
  // the kernel's is of no use.
  void Init(int version, std::vector<std::string> writable);
  bool active() const { return version_ >= kLandlockUsable; }
  // In the present mount namespace. Invalid with errno on failure.
  UniqueFd MakeRuleset() const;

 private:
  int version_ = 0;
  std::vector<std::string> writable_;
};

// For good, and for all it starts. Needs no_new_privs.
StepResult RestrictSelf(int ruleset);

}  // namespace pulga
