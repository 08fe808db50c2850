// Prints a directory tree for people and for comparing: streaming, in the order `sort` would give
// in the C locale, memory bounded by the names of one path of directories (8 MiB, else kTooLarge).
// Nobody may change the tree meanwhile.
#pragma once

#include "base/result.h"

namespace pulga {

// "path|type|octal mode|uid:gid|linktarget" for everything below the root, sorted by line; type is
// find's letter; control bytes, '\\' and '|' in names as \xNN.
Status ListTree(int root_fd, int output_fd);
// "sha256  ./path" for regular files, sorted by path, as `sha256sum` prints them.
Status ListSums(int root_fd, int output_fd);

}  // namespace pulga
