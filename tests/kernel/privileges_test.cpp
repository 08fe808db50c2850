// All five capability sets are empty afterwards, and nothing brings them back. libcap reads them.
#include "sandbox/privileges.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/prctl.h>

#include <array>

#include "base/file_io.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

using testing::RunInChild;

class Privileges : public ::testing::Test {
 protected:
  void SetUp() override { PULGA_NEED(geteuid() == 0, "giving privileges up needs some"); }
};

// What a launched program does, in its order.
int GiveUpEverything(const Ids& ids) {
  for (const StepResult& step :
       {DropBounding(), LockSecurebits(), SetIds(ids), NoNewPrivs(), ClearAllCapabilities()}) {
    if (!step.ok()) return step.sys_errno == 0 ? 255 : step.sys_errno;
  }
  return 0;
}

bool HasNone(cap_flag_t set) {
  const cap_t caps = cap_get_proc();
  for (cap_value_t cap = 0; cap <= cap_max_bits(); ++cap) {
    cap_flag_value_t value = CAP_SET;
    if (cap_get_flag(caps, cap, set, &value) == 0 && value != CAP_CLEAR) return false;
  }
  cap_free(caps);
  return true;
}

TEST_F(Privileges, AllFiveSetsEndEmpty) {
  EXPECT_EQ(RunInChild([] {
              if (const int error = GiveUpEverything({1234, 1234, {}})) return error;
              for (const auto set : {CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE}) {
                if (!HasNone(set)) return 201;
              }
              for (cap_value_t cap = 0; cap < cap_max_bits(); ++cap) {
                if (cap_get_bound(cap) != 0) return 202;
                if (cap_get_ambient(cap) != 0) return 203;
              }
              return 0;
            }),
            0);
}

TEST_F(Privileges, TheKernelSaysSoToo) {
  EXPECT_EQ(RunInChild([] {
              if (const int error = GiveUpEverything({1234, 1234, {}})) return error;
              const std::string status = ReadFile("/proc/self/status").value();
              for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
                if (status.find(std::string(set) + ":\t0000000000000000") == std::string::npos) {
                  return 204;
                }
              }
              return status.find("NoNewPrivs:\t1") == std::string::npos ? 205 : 0;
            }),
            0);
}

TEST_F(Privileges, IdsAreSetCompletely) {
  EXPECT_EQ(RunInChild([] {
              const std::array<gid_t, 2> groups = {7, 8};
              if (!SetIds({1234, 1235, groups}).ok()) return 1;
              uid_t r, e, s;
              gid_t gr, ge, gs;
              if (getresuid(&r, &e, &s) != 0 || getresgid(&gr, &ge, &gs) != 0) return 2;
              if (r != 1234 || e != 1234 || s != 1234) return 3;
              if (gr != 1235 || ge != 1235 || gs != 1235) return 4;
              gid_t now[8];
              return getgroups(8, now) == 2 && now[0] == 7 && now[1] == 8 ? 0 : 5;
            }),
            0);
}

TEST_F(Privileges, RootOfANamespaceGetsNothingBackByExec) {
  EXPECT_EQ(RunInChild([] {
              if (const int error = GiveUpEverything({0, 0, {}})) return error;
              execl("/bin/sh", "sh", "-c", "grep -q 'CapEff:.0000000000000000' /proc/self/status",
                    nullptr);
              return 206;
            }),
            0);
}

TEST_F(Privileges, SecurebitsAreLocked) {
  EXPECT_EQ(RunInChild([] {
              if (!LockSecurebits().ok()) return 1;
              const int bits = prctl(PR_GET_SECUREBITS);
              constexpr int kWanted = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |
                                      SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
                                      SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                      SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
              if (bits != kWanted) return 2;
              return prctl(PR_SET_SECUREBITS, 0) == 0 ? 3 : 0;
            }),
            0);
}

TEST_F(Privileges, AFailureNamesItsStep) {
  EXPECT_EQ(RunInChild([] {
              if (!SetIds({1234, 1234, {}}).ok()) return 1;
              const StepResult bounding = DropBounding();
              const StepResult ids = SetIds({0, 0, {}});
              if (bounding.sys_errno != EPERM || std::string(bounding.step) != "drop-bounding")
                return 2;
              return ids.sys_errno == EPERM && std::string(ids.step) == "set-groups" ? 0 : 3;
            }),
            0);
}

}  // namespace
}  // namespace pulga
