// Skips that say why, and that are failures where every test has to run (PULGA_TESTS_MUST_RUN=1).
#pragma once

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace pulga::testing {
inline bool MustRun() {
  const char* value = getenv("PULGA_TESTS_MUST_RUN");
  return value != nullptr && std::string_view(value) == "1";
}
inline bool KnowsOpenAt2() {
  return syscall(SYS_openat2, -1, "", nullptr, 0) == 0 || errno != ENOSYS;
}
}  // namespace pulga::testing

#define PULGA_SKIP(why)                                             \
  do {                                                              \
    if (::pulga::testing::MustRun()) FAIL() << "must run: " << why; \
    GTEST_SKIP() << why;                                            \
  } while (false)

#define PULGA_NEEDS_ROOT()                                   \
  do {                                                       \
    if (geteuid() != 0) PULGA_SKIP("needs root to map ids"); \
  } while (false)

// Without it nothing is looked up inside a root that is not the caller's own.
#define PULGA_NEEDS_OPENAT2()                                                         \
  do {                                                                                \
    if (!::pulga::testing::KnowsOpenAt2()) {                                          \
      PULGA_SKIP("no openat2: before Linux 5.6, or under an emulator that has none"); \
    }                                                                                 \
  } while (false)
