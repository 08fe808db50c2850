// Where this board's swap lies, as /proc/swaps says: in memory (zram), or on something that keeps
// what was written to it and wears out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

struct ActiveSwap {
  bool any = false;
  std::string elsewhere;  // the first that is no zram device; empty: all are
};

// A pure function of the file's text; what it cannot read is an error.
Result<ActiveSwap> ParseSwaps(std::string_view text);
Result<ActiveSwap> ReadSwaps();

// Whether the pages of a function with this limits.swap may be pushed out to it. The error says
// which swap is in the way.
Status MayPushOut(const ActiveSwap& swap, uint64_t swap_limit);

}  // namespace pulga
