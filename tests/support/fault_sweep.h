// Sweeps an operation over injected faults: call n fails, for n = 1, 2, 3 ..., until the operation
// needs fewer than n calls. After each the caller checks that nothing leaked.
#pragma once

#include <dirent.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>

#include "base/sys.h"

namespace pulga::testing {

// Open descriptors of a process; "self" for the own one.
inline int CountFds(const std::string& pid = "self") {
  DIR* dir = opendir(("/proc/" + pid + "/fd").c_str());
  int count = 0;
  while (dir != nullptr && readdir(dir) != nullptr) ++count;
  if (dir != nullptr) closedir(dir);
  return count;
}

// Disarms when it goes.
class InjectedFault {
 public:
  InjectedFault(int n, int sys_errno) { sys::FailNthCall(n, sys_errno); }
  InjectedFault(const InjectedFault&) = delete;
  InjectedFault& operator=(const InjectedFault&) = delete;
  ~InjectedFault() { sys::FailNthCall(0, 0); }
};

// Calls `once(n)` with the n-th call armed, until no call was left to fail. The number of calls the
// operation makes; 0 (and a test failure) when it never ends.
inline int SweepFaults(int sys_errno, const std::function<void(int n)>& once) {
  constexpr int kMost = 5000;
  for (int n = 1; n < kMost; ++n) {
    const InjectedFault fault(n, sys_errno);
    once(n);
    if (::testing::Test::HasFatalFailure()) return 0;
    if (sys::CallsSeen() < n) return sys::CallsSeen();
  }
  ADD_FAILURE() << "still failing after " << kMost << " calls";
  return 0;
}

}  // namespace pulga::testing
