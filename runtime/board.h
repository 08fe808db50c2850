// Board: the cores and memory functions may share, and what follows from them: the memory budget
// and the limits no function may pass. Reading blocks on /proc and the cgroup files: start-up only.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "runtime/function_spec.h"

namespace pulga {

struct Board {
  uint32_t cores = 1;
  uint64_t memory_bytes = 0;        // MemTotal
  uint64_t cgroup_limit_bytes = 0;  // the smallest limit on our own cgroups; 0 = none
};

Result<Board> ReadBoard();

// The text of /proc/meminfo -> MemTotal in bytes.
Result<uint64_t> ParseMemTotal(std::string_view meminfo);
// All instances together: 80 % of what we may use.
uint64_t DefaultMemoryBudget(const Board& board);
// kInvalidArgument naming the limit, what was asked and what there is.
Status CheckAgainstBoard(const FunctionSpec& spec, const Board& board);

}  // namespace pulga
