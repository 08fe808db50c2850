// Whether this board runs programs of 32-bit ARM beside its own: found by running one, a memory
// file of three instructions. A kernel without CONFIG_COMPAT or a core without the 32-bit mode
// refuses. Blocks a millisecond, forks. Ok; kUnsupported: the board refuses; else what went wrong.
// Needs: /proc. Source: Documentation/arch/arm64/asymmetric-32bit.rst.
#pragma once

#include "base/result.h"

namespace pulga {

Status RunArm32Program();

}  // namespace pulga
