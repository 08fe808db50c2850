// Where this board's swap lies, as /proc/swaps says: in memory (zram), or on something that keeps
// what was written to it and wears out; and what zram makes of it. Source: kernel
// Documentation/admin-guide/blockdev/zram.rst (mm_stat).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

struct ActiveSwap {
  bool any = false;
  std::string elsewhere;          // the first that is no zram device; empty: all are
  std::vector<std::string> zram;  // "zram0"
};

// A pure function of the file's text; what it cannot read is an error.
Result<ActiveSwap> ParseSwaps(std::string_view text);
Result<ActiveSwap> ReadSwaps();

// Whether the pages of a function with this limits.swap may be pushed out to it. The error says
// which swap is in the way.
Status MayPushOut(const ActiveSwap& swap, uint64_t swap_limit);

// What zram devices hold, and what that takes of the board's memory.
struct ZramUse {
  uint64_t stored_bytes = 0;
  uint64_t taken_bytes = 0;
};

// The text of /sys/block/zram0/mm_stat; what it cannot read is nothing.
ZramUse ParseZramUse(std::string_view text);
// Over all that are swap. Reads a line per device: some microseconds.
ZramUse ReadZramUse(const ActiveSwap& swap);
// What `swapped` bytes take, at the rate of all that is stored; a third where no rate is known yet.
uint64_t TakenInZram(uint64_t swapped, const ZramUse& use);

}  // namespace pulga
