// mke2fs and e2fsck of the host (Debian: e2fsprogs) on a volume's file, as a user who owns that
// file and nothing else: no capabilities, no network, no other descriptor. e2fsck reads names that
// functions chose. Own process (a child of the launcher): forks and waits.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace pulga {

struct FormatOptions {
  uint64_t bytes = 0;
  std::string label;  // shows in blkid; at most 16 bytes
};
// kUnsupported: the program is missing.
Status FormatExt4(int image_fd, const FormatOptions& options);
// Repairs what can be repaired without a question. kIo: more is needed.
Status RepairExt4(int image_fd);

// For `doctor`: where mke2fs is, "" when it is missing.
std::string FindVolumeTool(const std::string& name);

}  // namespace pulga
