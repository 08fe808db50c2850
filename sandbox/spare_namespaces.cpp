#include "sandbox/spare_namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>

#include "base/sys.h"
#include "sandbox/mount_apply.h"

namespace pulga {
namespace {

constexpr const char* kOwnMounts = "/proc/self/ns/mnt";

}  // namespace

StepResult SpareNamespaces::Init(std::vector<MountEntry> mounts, const Landlock& fence) {
  mounts_ = std::move(mounts);
  fence_ = &fence;
  own_mounts_.Reset(PULGA_SYS(open, kOwnMounts, O_RDONLY | O_CLOEXEC));
  if (!own_mounts_.valid()) return {"spare-mounts", errno};
  Refresh();
  return {};
}

void SpareNamespaces::Refresh() {
  if (!ipc_unused_) ipc_unused_ = PULGA_SYS(sys::MarkedUnshare, CLONE_NEWIPC) == 0;
  if (!mounts_fd_.valid()) RefreshMounts();
}

void SpareNamespaces::RefreshMounts() {
  if (PULGA_SYS(sys::MarkedUnshare, CLONE_NEWNS) != 0) return;
  if (ApplyMounts(mounts_).ok()) {
    if (fence_->active()) ruleset_ = fence_->MakeRuleset();
    if (!fence_->active() || ruleset_.valid()) {
      mounts_fd_.Reset(PULGA_SYS(open, kOwnMounts, O_RDONLY | O_CLOEXEC));
    }
  }
  // Staying would hand the spawner's view to an instance: better to die.
  if (PULGA_SYS(sys::MarkedSetNs, own_mounts_.get(), CLONE_NEWNS) != 0) _exit(1);
}

}  // namespace pulga
