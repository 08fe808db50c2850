// rm -r where renaming directories is impossible (an overlay) and depth is hostile. By directory
// descriptors only: follows no symbolic link and crosses no mount. Exclusive use of the tree
// needed.
#pragma once

#include <string>

#include "base/result.h"

namespace pulga {

// A missing `name` is success.
Status RemoveAll(int parent_fd, const std::string& name);

}  // namespace pulga
