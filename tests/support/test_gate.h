// Skips that say why, and that are failures where every test has to run (PULGA_TESTS_MUST_RUN=1).
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace pulga::testing {
inline bool MustRun() {
  const char* value = getenv("PULGA_TESTS_MUST_RUN");
  return value != nullptr && std::string_view(value) == "1";
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
