// Carries out the one job of this process (net_job.h). Runs single-threaded as root with
// CAP_SYS_ADMIN and CAP_NET_ADMIN (kOpen: CAP_SETUID and CAP_SETGID too); leaves namespaces and
// privileges changed, so the process must end afterwards. Blocks. On failure nothing is left that
// the launcher can not remove by a kDetach.
#pragma once

namespace pulga {

// Descriptors and answer as net_job.h says; the exit status.
int ServeNetJob();

}  // namespace pulga
