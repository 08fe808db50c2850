// The set-up child of one unpack job: opens the layers, clones the unpacker into namespaces of its
// own as the launcher's child, maps its ids, and exits. The unpacker then confines itself further
// (chroot, seccomp, giving up the rest of its capabilities) before it reads a byte.
// It keeps CAP_SYS_ADMIN, CAP_SYS_CHROOT and CAP_SETPCAP, all only inside its own user namespace:
// to mount the overlay of the parents, to enter it, and to give these up. CHOWN, DAC_OVERRIDE,
// FOWNER and FSETID do the unpacking.
// Own process; never returns. Reports like a version's set-up child (build_report.h).
#pragma once

#include <string>

#include "base/unpack_job.h"
#include "sandbox/cgroup.h"
#include "sandbox/id_ranges.h"
#include "sandbox/job_rules.h"

namespace pulga {

struct UnpackStart {
  UnpackJob job;        // with its fds
  std::string staging;  // the staging directory's name, below layers/
  JobCgroup cgroup;
  int layers_fd = -1;
  HelperNetwork network = HelperNetwork::kNone;
  int program_fd = -1;  // the executable
  int report_fd = -1;
  HostIds ids;
  std::string executable;  // its name, for argv[0] and messages
};

[[noreturn]] void StartUnpackerAndExit(UnpackStart start);

}  // namespace pulga
