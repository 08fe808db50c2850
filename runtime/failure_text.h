// The plain-text body of a failed call: what happened, the numbers, what to do. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/version.h"
#include "sandbox/outcome.h"

namespace pulga {

struct FailureFacts {
  uint64_t memory_peak_bytes = 0;
  uint64_t memory_limit_bytes = 0;  // it had; 0: the version's
  std::string stderr_tail;          // last 4 KiB
  std::string remark;               // what only the place that failed knew
  // http: the program ended, of its own or not, before it took a connection.
  bool ended_before_listening = false;
};

// `version` may be null: the function is unknown.
std::string MakeFailureText(const Outcome& outcome, const Version* version,
                            const FailureFacts& facts);

}  // namespace pulga
