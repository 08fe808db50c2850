// Version: one immutable revision of a function with everything resolved: what the image says, what
// the spec overrides, the mode chosen. Made by the registry, run by the dispatcher.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "runtime/function_spec.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct Version {
  FunctionKey key;
  uint64_t id = 0;      // row id: unique over all functions, never reused
  uint32_t number = 1;  // per function: 1, 2, 3, ...
  FunctionSpec spec;
  std::string image_ref;     // normalised
  std::string image_digest;  // "sha256:..."
  int64_t created_unix_ms = 0;
  // Resolved from image and spec.
  std::vector<LayerId> layers;       // base first
  std::vector<VolumeMount> volumes;  // the spec's, by id
  SandboxMode mode = SandboxMode::kExec;
  std::string mode_reason;  // "the image EXPOSEs 8080"
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string user;
  std::string working_dir;
  uint16_t port = 8080;
  uint32_t concurrency = 1;
};

using VersionPtr = std::shared_ptr<const Version>;

}  // namespace pulga
