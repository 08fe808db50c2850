// RefusalBook: which system calls the instances of a function were refused, over all its versions,
// since the daemon started; and when that is worth a line in the logs: at the first, then once a
// minute at most. A spawner's word: it may be wrong for its own function, and for no other. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "sandbox/sandbox.h"

namespace pulga {

class RefusalBook {
 public:
  // The line to be logged now, "" for none.
  std::string Add(const std::vector<RefusedCount>& more, TimePoint now);
  const std::map<std::string_view, uint64_t>& counts() const { return counts_; }

 private:
  std::map<std::string_view, uint64_t> counts_;
  TimePoint next_line_;
};

}  // namespace pulga
