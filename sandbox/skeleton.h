// The topmost lower directory of a version: real directories for mount points and WORKDIR, and our
// own /etc/{hosts,hostname,resolv.conf}; an image's symlink in their place is replaced.
// Set-up child only, before the root is entered. Names of the image are resolved inside its root.
// Source: docs/architecture.md, "Layers on disk"; cases S05, S10, U60.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

// "/a//b/../c/" -> "/a/c"; never leaves "/".
std::string NormalizePath(std::string_view path);
// True for `dir` itself and everything below it.
bool IsBelow(std::string_view path, std::string_view dir);

struct SkeletonOptions {
  int image_root = -1;      // the layers merged, without a skeleton; nothing is mounted below it
  int skeleton = -1;        // empty directory, filled by this
  std::string working_dir;  // as the image writes it
  std::string hostname;
  uid_t owner = 0;        // of what the image does not have itself
  std::string resolvers;  // text of resolv.conf, on the host's network; else empty
  std::string router;     // its address, with outbound network; else empty
};

// Returns WORKDIR as it will be found inside, free of symlinks.
Result<std::string> FillSkeleton(const SkeletonOptions& options);
// A directory to mount on, afterwards: `path` as it will be found inside. kInvalidArgument where
// the instance's own mounts would cover it.
Result<std::string> AddMountPoint(const SkeletonOptions& options, const std::string& path);

}  // namespace pulga
