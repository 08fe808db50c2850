// Board: the cores and memory functions may share, and what follows from them: the memory budget
// and the limits no function may pass. Reading blocks on /proc and the cgroup files: start-up only.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "runtime/function_spec.h"
#include "sandbox/kernel_features.h"

namespace pulga {

struct Board {
  uint32_t cores = 1;
  uint64_t memory_bytes = 0;        // MemTotal
  uint64_t swap_bytes = 0;          // SwapTotal
  uint64_t cgroup_limit_bytes = 0;  // the smallest limit on our own cgroups; 0 = none
  uint64_t budget_bytes = 0;        // all instances together; 0 = not set yet
  uint64_t max_open_files = 0;      // our hard limit, which no instance gets above; 0 = not known
};

Result<Board> ReadBoard();

// The text of /proc/meminfo, "MemTotal" -> its bytes.
Result<uint64_t> ParseMeminfo(std::string_view meminfo, std::string_view name);
// All instances together: 80 % of what we may use; of a small board less, so that 192 MiB (of a
// very small one three eighths) are left to the kernel, to spawners and to us.
uint64_t DefaultMemoryBudget(const Board& board);
// What a deploy that names no limits.cpu gets: half a core, or no quota where the kernel has none.
uint32_t DefaultCpuMillis(const Board& board, const std::vector<Feature>& features);
// kInvalidArgument naming the limit, what was asked and what there is.
Status CheckAgainstBoard(const FunctionSpec& spec, const Board& board);
// kUnsupported naming a limit of `spec` that this kernel has no means to enforce; with
// allow_unenforced only for memory and pids, and of a rootless daemon (it has the feature
// "cgroup.delegation", absent or not) for none.
Status CheckEnforceable(const FunctionSpec& spec, const std::vector<Feature>& features);

}  // namespace pulga
