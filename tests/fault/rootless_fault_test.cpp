// An ordinary user becomes root of a user namespace while the n-th system call fails, in this
// process or in the one that has the maps written: an error that names step and errno, or fewer ids
// and the reason for it in words; never ids that nobody was told of, and no child and no descriptor
// is left.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/id_ranges.h"
#include "sandbox/rootless.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/kernel_test.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uid_t kUser = 0x79A00000;  // nobody's
constexpr int kQuietRounds = 12;     // that many in a row as if nothing had failed: nothing did
constexpr int kMostCalls = 500;

// What a child saw of itself; plain, as it comes through a pipe.
struct Entered {
  bool done = false;  // else the step below failed, which is the test's own
  bool ok = false;
  bool single = false;  // whether there is one id now
  int sys_errno = 0;
  int fds_more = 0;
  bool child_left = false;
  char why[512] = "";  // the error, or why there is one id only
};

class RootlessFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    PULGA_NEED(access("/usr/bin/newuidmap", X_OK) == 0, "no newuidmap: see scripts/setup");
  }

  // The three files of the host that name users and their ids, as the child sees them.
  void Write(const std::string& subids) {
    const std::string number = std::to_string(kUser);
    ASSERT_TRUE(WriteFile(temp_.path() + "/passwd",
                          "flea:x:" + number + ":" + number + "::/:/bin/sh\n", 0644)
                    .ok());
    for (const char* name : {"/subuid", "/subgid"}) {
      ASSERT_TRUE(WriteFile(temp_.path() + name, subids, 0644).ok());
    }
  }

  bool BecomeUser() const {
    bool ok = unshare(CLONE_NEWNS) == 0 &&
              mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    for (const std::string name : {"/passwd", "/subuid", "/subgid"}) {
      ok = ok && mount((temp_.path() + name).c_str(), ("/etc" + name).c_str(), nullptr, MS_BIND,
                       nullptr) == 0;
    }
    // As after an execve: its own files in /proc are its own.
    return ok && setgroups(0, nullptr) == 0 && setresgid(kUser, kUser, kUser) == 0 &&
           setresuid(kUser, kUser, kUser) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0;
  }

  Entered BeChild(int n, int sys_errno) const {
    Entered entered;
    if (!BecomeUser()) return entered;
    const int fds = CountFds();
    sys::FailNthCall(n, sys_errno);
    const auto result = EnterRootless();
    sys::FailNthCall(0, 0);
    entered.done = true;
    entered.ok = result.ok();
    entered.sys_errno = result.ok() ? 0 : result.error().sys_errno;
    entered.fds_more = CountFds() - fds;
    entered.child_left = waitpid(-1, nullptr, WNOHANG) >= 0 || errno != ECHILD;
    const auto ids = ReadHostIds();
    entered.single = ids.ok() && ids->IsSingle();
    const std::string why = result.ok() ? result->one_id_only : result.error().message;
    why.copy(entered.why, sizeof entered.why - 1);
    return entered;
  }

  Entered Enter(int n, int sys_errno) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = StartChild([&] {
      const Entered entered = BeChild(n, sys_errno);
      return write(ends[1], &entered, sizeof entered) == sizeof entered ? 0 : 1;
    });
    close(ends[1]);
    Entered entered;
    if (read(ends[0], &entered, sizeof entered) != sizeof entered) entered.done = false;
    close(ends[0]);
    EXPECT_EQ(WaitForChild(child), 0);
    EXPECT_TRUE(entered.done) << "call " << n << ": it ended before it could tell";
    return entered;
  }

  void Check(const Entered& entered, int sys_errno, const std::string& where) {
    EXPECT_EQ(entered.fds_more, 0) << where;
    EXPECT_FALSE(entered.child_left) << where;
    if (entered.ok) {
      EXPECT_EQ(entered.single, entered.why[0] != '\0') << where << ": " << entered.why;
    } else {
      EXPECT_EQ(entered.sys_errno, sys_errno) << where;
      EXPECT_THAT(std::string(entered.why), StartsWith("rootless: ")) << where;
      EXPECT_THAT(std::string(entered.why), HasSubstr(strerror(sys_errno))) << where;
    }
  }

  // How many rounds failed; `usual` is what is said when nothing does.
  int Sweep(int sys_errno, const std::string& usual) {
    int quiet = 0, failed = 0, n = 1;
    for (; n < kMostCalls && quiet < kQuietRounds && !HasFailure(); ++n) {
      const Entered entered = Enter(n, sys_errno);
      Check(entered, sys_errno, "call " + std::to_string(n));
      const bool as_usual = entered.ok && entered.why == usual;
      quiet = as_usual ? quiet + 1 : 0;
      failed += !entered.ok;
    }
    EXPECT_LT(n, kMostCalls);
    return failed;
  }

  TempDir temp_ = std::move(TempDir::Create("/tmp/pulga-rootless-")).value();
};

TEST_F(RootlessFaults, WithIdsOfItsOwnEveryFailingCallIsTold) {
  ASSERT_EQ(chmod(temp_.path().c_str(), 0755), 0);
  Write("flea:2000000000:65536\n");
  const Entered plain = Enter(0, 0);
  ASSERT_TRUE(plain.ok && !plain.single) << plain.why;
  for (const int sys_errno : {ENOMEM, EPERM}) EXPECT_GE(Sweep(sys_errno, ""), 3);
}

TEST_F(RootlessFaults, WithOneIdEveryFailingCallIsTold) {
  ASSERT_EQ(chmod(temp_.path().c_str(), 0755), 0);
  Write("");
  const Entered plain = Enter(0, 0);
  ASSERT_TRUE(plain.ok && plain.single);
  EXPECT_THAT(std::string(plain.why), HasSubstr("/etc/subuid names no ids for flea"));
  EXPECT_GE(Sweep(ENOMEM, plain.why), 8);
}

}  // namespace
}  // namespace pulga::testing
