// Writes a child's user namespace maps: 0..65535 to the owner's range, and optionally 65536 to one
// host id more. By the parent, as root, through a trusted proc directory fd.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/result.h"

namespace pulga {

Status WriteIdMaps(int proc_fd, pid_t child, std::optional<uid_t> extra_host_id);
// 0 alone, to `host_id`.
Status WriteSingleIdMap(int proc_fd, pid_t child, uid_t host_id);

}  // namespace pulga
