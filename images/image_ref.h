// Image names as Docker reads them: "hello" is "docker.io/library/hello:latest".
// Never part of a path. kInvalidArgument with a message for people.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

struct ImageRef {
  std::string domain;      // "docker.io", "localhost:5000"
  std::string repository;  // "library/hello"
  std::string tag;         // "latest"; empty when a digest was given without a tag
  std::string digest;      // "sha256:..." or empty

  std::string ToString() const;  // the normalised name, the key under which images are stored
  std::string Familiar() const;  // as people write it: "hello:latest"
};

// Accepts "name", "name:tag", "name@sha256:...", "host:port/path/name:tag@sha256:...".
Result<ImageRef> ParseImageRef(std::string_view text);
// "hello" -> "docker.io/library/hello:latest".
Result<std::string> NormalizeImageRef(std::string_view text);
// "docker.io/library/hello:latest" -> "hello:latest"; text that is no valid name comes back as is.
std::string FamiliarName(std::string_view normalised);
// "sha256:" and 64 lower-case hex digits: an ImageID or manifest digest, not a name.
bool IsSha256Digest(std::string_view text);

}  // namespace pulga
