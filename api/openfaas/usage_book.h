// UsageBook: how much processor a function's instances use, in thousandths of a core: of each since
// it was last asked for, but for a second at least; the first time since it began. Loop thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "runtime/engine.h"

namespace pulga {

class UsageBook {
 public:
  // None: its kernel does not tell of any of them. All functions' books together are bounded.
  std::optional<uint64_t> CpuMillis(const FunctionStatus& function);

 private:
  struct Sight {
    int64_t age_ms = 0;  // of the instance, then
    Duration used{0};
    uint64_t millis = 0;  // before that
  };
  static Sight Look(const InstanceStatus& instance, const Sight* last);

  std::map<FunctionKey, std::map<uint16_t, Sight>> functions_;  // by slot
};

}  // namespace pulga
