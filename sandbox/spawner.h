// The spawner of one version: root of a user namespace nobody else is in, its root already the
// image's. Takes requests from the daemon on one socket and turns each into one clone; reads
// nothing else. Its death (or the daemon's, or the launcher's) ends its pid namespace and all in
// it. Own process; never returns. The request path makes plain system calls and allocates nothing
// that matters; whatever is slow (network namespaces) happens after the answer. Needs: Linux 4.18
// or newer with user namespaces. Source: docs/architecture.md, laws 1-7.
#pragma once

#include <string>
#include <vector>

#include "sandbox/apparmor.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_view.h"
#include "sandbox/id_ranges.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct SpawnerInput {
  VersionSpec spec;  // working_dir already resolved inside the root
  HostIds ids;
  std::vector<SlotCgroup> slots;
  std::vector<CgroupView> views;  // what instances see of their cgroups
  AppArmorUse apparmor = AppArmorUse::kAuto;
  int socket_fd = -1;  // to the daemon
  int records_fd = -1;
  int report_fd = -1;  // kReady or kFailed, then closed
  int lifeline_fd = -1;
  int attach_fd = -1;  // to the launcher, for network namespaces; -1: they need nobody
  int start_fd = -1;   // one byte once the id maps are written
};

// The entry for CloneChild; `input` is a SpawnerInput*. Closes every fd it does not name: one of
// the host's directories would lead out of the root.
void SpawnerMain(void* input);

}  // namespace pulga
