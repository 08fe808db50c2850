// What sweeps by strace share: which calls fail with what, and whether a log shows that one did.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <ostream>
#include <string>
#include <string_view>

#include "base/text.h"

namespace pulga::testing {

constexpr int kMostCalls = 2000;
constexpr const char* kStrace = "/usr/bin/strace";

struct Set {
  const char* name;
  const char* calls;  // a "?" before one that not every machine has
  const char* error;
  int sys_errno;
  int step = 1;  // every so many-th n; PULGA_SWEEP_STEP=1 tries them all
};

inline std::string NameOfSet(const ::testing::TestParamInfo<Set>& param) {
  return param.param.name;
}
inline void PrintTo(const Set& set, std::ostream* out) { *out << set.name; }

// Did the injection of that log hit anybody? strace marks what it made fail, but not whom it
// killed: that one's last call is its n-th of that name.
inline bool Touched(const std::string& log, int n) {
  if (log.find("INJECTED") != std::string::npos) return true;
  std::map<std::string_view, std::map<std::string_view, int>> calls;  // by pid and name
  std::map<std::string_view, int> last;                               // how often the last one was
  for (const std::string_view line : Split(log, '\n')) {
    const std::string_view pid = line.substr(0, line.find(' '));
    const bool killed = line.find("+++ killed by SIGKILL") != std::string_view::npos;
    if (killed && last[pid] == n) return true;
    const size_t open = line.find('(');
    if (open == std::string_view::npos || line.find_first_of("+<-") < open) continue;
    const size_t name = line.find_first_not_of(' ', pid.size());
    last[pid] = ++calls[pid][line.substr(name, open - name)];
  }
  return false;
}

}  // namespace pulga::testing
