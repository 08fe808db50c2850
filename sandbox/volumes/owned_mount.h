// A directory of the host shown as if one of its users were the function's: an id-mapped mount.
// What belongs to that user and group is the function's, what the function makes belongs to them,
// and everybody else's stays somebody else's: an id that no process has. nosuid, nodev.
// Own process, single-threaded, in a mount namespace of its own; needs root and /proc.
// kUnsupported: the kernel (before Linux 5.12) or the file system has no such mounts.
// Source: mount_setattr(2), Documentation/filesystems/idmappings.rst.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "sandbox/grants.h"
#include "sandbox/id_maps.h"

namespace pulga {

struct OwnerChange {
  HostOwner on_disk;
  HostOwner shown_as;  // as the host counts: the function's user, in its range
};
// The user namespace whose map says so: inside are the ids on the disk. Pure.
IdMapTexts MapsOfOwner(const OwnerChange& change);

enum class MountUse : uint8_t { kReadWrite, kReadOnly };
struct OwnedMount {
  int directory_fd = -1;
  OwnerChange owner;
  std::string target;
  MountUse use = MountUse::kReadOnly;
};
// The directory's own mount only; what lies mounted below is not seen.
Status MountOwned(const OwnedMount& order);

}  // namespace pulga
