// Writes a child's user namespace maps: the ids of images to the owner's range, and optionally
// 65536 to one host id more. By the parent, as root of its own, through a trusted proc directory
// fd.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/result.h"
#include "sandbox/id_ranges.h"

namespace pulga {

Status WriteIdMaps(int proc_fd, pid_t child, const HostIds& ids,
                   std::optional<uid_t> extra_host_id);
// As given, lines of "INSIDE HOST COUNT" each.
struct IdMapTexts {
  std::string uids;
  std::string gids;
};
Status WriteIdMapTexts(int proc_fd, pid_t child, const IdMapTexts& maps);
// 0 alone, to `host_id`.
Status WriteSingleIdMap(int proc_fd, pid_t child, uid_t host_id);

}  // namespace pulga
