#include "sandbox/mount_plan.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>

#include "base/file_io.h"
#include "sandbox/privileges.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

// The plan masks only what others may read; this is why that is enough.
TEST(ProcEntriesKernel, WhatIsNotMaskedCannotBeReadFromAUserNamespace) {
  PULGA_NEED(geteuid() == 0, "taking another id needs root");
  const std::vector<ProcEntry> entries = ReadProcEntries("/proc");
  ASSERT_FALSE(entries.empty());
  for (const ProcEntry& entry : entries) {
    if (entry.readable_by_others) continue;
    EXPECT_EQ(testing::RunInChild([&] {
                // An id of a function: all capabilities, but over its own user namespace only.
                if (!SetIds({0x7a000000, 0x7a000000, {}}).ok()) return 1;
                if (unshare(CLONE_NEWUSER) != 0) return 2;
                return open(("/proc/" + entry.name).c_str(), O_RDONLY) < 0 ? errno : 0;
              }),
              EACCES)
        << entry.name;
  }
}

}  // namespace
}  // namespace pulga
