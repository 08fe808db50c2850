// Layers by number, for tests that need no content.
#pragma once

#include "base/layer_id.h"

namespace pulga::testing {

inline LayerId Layer(uint8_t n) {
  LayerId id;
  id.bytes.fill(n);
  return id;
}

}  // namespace pulga::testing
