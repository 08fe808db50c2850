#include "runtime/memory_budget.h"

#include <sys/sysinfo.h>

namespace pulga {

uint64_t BoardMemoryBudget() {
  struct sysinfo info = {};
  if (sysinfo(&info) != 0) return 256ULL << 20;
  return static_cast<uint64_t>(info.totalram) * info.mem_unit / 4 * 3;
}

}  // namespace pulga
