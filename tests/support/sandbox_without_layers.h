// SandboxWithoutLayers: what all pretended sandboxes have in common: nothing to unpack, no layers.
#pragma once

#include <functional>
#include <vector>

#include "sandbox/sandbox.h"

namespace pulga::testing {

class SandboxWithoutLayers : public Sandbox {
 public:
  uint64_t RunUnpack(UnpackJob, std::function<void(Status)> done) override {
    done(OkStatus());
    return 1;
  }
  void CancelUnpack(uint64_t) override {}
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) override {
    done(std::vector<LayerId>());
  }
};

}  // namespace pulga::testing
