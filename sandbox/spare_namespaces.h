// An IPC and a mount namespace (with its private /tmp) made before they are needed: what clone and
// mount would spend on the request path, about 60 us of 200, is spent after the previous instance's
// end. Each is given to one instance and never used again; without a spare the instance makes its
// own. Spawner only, single thread. Needs CAP_SYS_ADMIN in the user namespace and proc at /proc.
#pragma once

#include <vector>

#include "base/unique_fd.h"
#include "sandbox/landlock.h"
#include "sandbox/mount_plan.h"
#include "sandbox/privileges.h"

namespace pulga {

class SpareNamespaces {
 public:
  // `mounts` are made in every spare mount namespace, and `fence`, if any, around them; it must
  // outlive this.
  StepResult Init(std::vector<MountEntry> mounts, const Landlock& fence);
  // Makes what was taken. Failing is fine: the next instance pays itself.
  void Refresh();
  // Invalid: none ready, use CLONE_NEWNS and mount everything.
  UniqueFd TakeMounts() { return std::move(mounts_fd_); }
  // Belongs to the mounts just taken; invalid without a fence.
  UniqueFd TakeRuleset() { return std::move(ruleset_); }
  // False: use CLONE_NEWIPC. True: the child inherits the caller's, which nobody has used.
  bool TakeIpc() { return std::exchange(ipc_unused_, false); }

 private:
  void RefreshMounts();

  std::vector<MountEntry> mounts_;
  UniqueFd own_mounts_;
  UniqueFd mounts_fd_;
  const Landlock* fence_ = nullptr;
  UniqueFd ruleset_;
  bool ipc_unused_ = true;  // only the spawner has been in its present IPC namespace
};

}  // namespace pulga
