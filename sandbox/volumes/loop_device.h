// Loop devices: a file as a block device. Both functions return the open device; it detaches by
// itself with the last of that descriptor and the mounts made from it, whoever dies how.
// Blocks for some milliseconds. Needs root and a kernel with loop devices and LOOP_CONFIGURE (5.8).
// Source: Linux, drivers/block/loop.c; loop(4).
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

// kUnsupported, with words, where there are no loop devices for us.
Result<UniqueFd> OpenLoopControl();
// A free device on `image_fd`. kUnsupported when this kernel has none.
Result<UniqueFd> AttachLoop(int image_fd);
// The device on that file, if there is one: kNotFound. `file_name` is the last part of its path.
Result<UniqueFd> FindLoop(int image_fd, const std::string& file_name);

}  // namespace pulga
