// Growing a volume in a file, also while functions use it: first the file, whose new space is taken
// from the disk, then the device, then the file system, by the kernel and journaled. Whatever stops
// that in between leaves a file system smaller than its file, which the next mount makes up for.
// In children of the launcher. Needs CAP_SYS_RESOURCE, which some containers and virtual machines
// give no root. Blocks on the disk.
// Source: Linux, fs/ext4/ioctl.c (EXT4_IOC_RESIZE_FS), drivers/block/loop.c (LOOP_SET_CAPACITY).
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

struct GrowOrder {
  uint64_t id = 0;
  uint64_t bytes = 0;
};
// kInvalidArgument: it is larger already; kNoSpace, kUnsupported: it is as it was. The same size
// again only ends what was begun.
Status GrowVolume(const VolumesDir& dir, const GrowOrder& order);

// kUnsupported: this process may not.
Status CanResizeFileSystems();

struct MountedVolume {
  uint64_t id = 0;
  int device_fd = -1;
  std::string path;  // where it is mounted, writable
};
// Until the file system is as large as its file; nothing when it is already.
Status FillFile(const VolumesDir& dir, const MountedVolume& volume);

}  // namespace pulga
