// Files that ought to be our own user's: keys and passwords, which somebody else may have put
// there. Any thread; blocks on the disk.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

// A regular file, to read; it gets `mode` where it has another. kNotFound; kPermission, with
// advice, when it is somebody else's and closed to us, or of another mode.
Result<UniqueFd> OpenOwnFile(const std::string& path, mode_t mode);

}  // namespace pulga
