// What programs of 32-bit ARM may ask of an arm64 board, by the lists, on whatever machine this is:
// its calls are answered as on a board that is 32-bit ARM itself, and those of arm64 as ever.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sched.h>
#include <seccomp.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/sys.h"
#include "sandbox/filter_compiler.h"
#include "sandbox/seccomp_profile.h"
#include "tests/support/bpf_evaluator.h"

namespace pulga {
namespace {

using testing::BpfEvaluator;
using Program = std::vector<sock_filter>;

constexpr Machine kArm64 = {"arm64", AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64};
constexpr uint32_t kPrivate = 0x0f0000;  // ARM's own calls begin there

constexpr uint32_t Errno(uint32_t number) { return SECCOMP_RET_ERRNO | number; }

FilterLists TheLists() {
  const std::string folder = std::string(PULGA_SOURCE_DIR) + "/sandbox/";
  return {ReadFile(folder + "syscalls.txt").value(),
          ReadFile(folder + "spawner_syscalls.txt").value()};
}

Program WithArm32(FilterPart part) {
  return CompileFilterWithArm32(TheLists(), part, kArm64).value();
}

Program Whole(const Machine& machine) {
  return CompileFilter(TheLists(), FilterPart::kWhole, machine).value();
}

seccomp_data Call(const Machine& machine, uint32_t number, uint64_t arg = 0) {
  seccomp_data data = {};
  data.nr = static_cast<int>(number);
  data.arch = machine.audit_arch;
  for (int i = 0; i < 4; ++i) data.args[i] = arg;
  return data;
}

seccomp_data Arm32Call(const char* name, uint64_t arg = 0) {
  const int number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_ARM, name);
  EXPECT_GE(number, 0) << name;
  return Call(Arm32(), static_cast<uint32_t>(number), arg);
}

// The kernel's own rule: all programs run, and the strictest answer counts.
uint32_t Strictest(const Program& one, const Program& other, const seccomp_data& data) {
  const uint32_t a = BpfEvaluator(one).Run(data).value();
  const uint32_t b = BpfEvaluator(other).Run(data).value();
  const auto rank = [](uint32_t r) { return static_cast<int32_t>(r & SECCOMP_RET_ACTION_FULL); };
  return rank(a) < rank(b) ? a : b;
}

std::vector<uint32_t> AllNumbers() {
  std::vector<uint32_t> numbers = {0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, 0xffffffff};
  for (uint32_t n = 0; n <= 600; ++n) numbers.push_back(n);
  for (uint32_t n = kPrivate; n <= kPrivate + 16; ++n) numbers.push_back(n);
  return numbers;
}

constexpr uint64_t kValues[] = {
    0, 1, 3, 9, 16, 17, 0x5412, 8, 0x20, 8192, CLONE_NEWUSER, 0x10000, 0xffffffff};

TEST(FilterWithArm32, AnswersThirtyTwoBitCallsAsAThirtyTwoBitBoard) {
  const Program alone = Whole(Arm32());
  const Program spawner = WithArm32(FilterPart::kWidened);
  const Program instance = WithArm32(FilterPart::kRest);
  for (const uint32_t number : AllNumbers()) {
    for (const uint64_t value : kValues) {
      seccomp_data data = Call(Arm32(), number, value);
      const uint32_t expected = BpfEvaluator(alone).Run(data).value();
      ASSERT_EQ(Strictest(spawner, instance, data), expected) << number << " " << value;
      data.args[5] = sys::kSetupMark;  // set-up makes no such calls
      ASSERT_EQ(Strictest(spawner, instance, data), expected) << "marked " << number;
    }
  }
}

TEST(FilterWithArm32, AnswersTheBoardsOwnCallsAsEver) {
  for (const FilterPart part : {FilterPart::kWidened, FilterPart::kCounted, FilterPart::kRest}) {
    const Program own = CompileFilter(TheLists(), part, kArm64).value();
    const Program both = WithArm32(part);
    for (const uint32_t number : AllNumbers()) {
      for (const uint64_t value : kValues) {
        seccomp_data data = Call(kArm64, number, value);
        ASSERT_EQ(BpfEvaluator(both).Run(data), BpfEvaluator(own).Run(data)) << number;
        data.args[5] = sys::kSetupMark;
        ASSERT_EQ(BpfEvaluator(both).Run(data), BpfEvaluator(own).Run(data)) << number;
      }
    }
  }
}

TEST(FilterWithArm32, IsForNoThirdArchitecture) {
  for (const FilterPart part : {FilterPart::kWidened, FilterPart::kCounted, FilterPart::kRest}) {
    for (const int64_t arch :
         std::initializer_list<int64_t>{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, AUDIT_ARCH_ARMEB, 0}) {
      seccomp_data data = Arm32Call("read");
      data.arch = static_cast<uint32_t>(arch);
      EXPECT_EQ(BpfEvaluator(WithArm32(part)).Run(data), SECCOMP_RET_KILL_PROCESS) << arch;
    }
  }
}

TEST(FilterOfArm64Alone, KillsThirtyTwoBitCalls) {
  for (const FilterPart part :
       {FilterPart::kWhole, FilterPart::kWidened, FilterPart::kCounted, FilterPart::kRest}) {
    const Program own = CompileFilter(TheLists(), part, kArm64).value();
    EXPECT_EQ(BpfEvaluator(own).Run(Arm32Call("read")), SECCOMP_RET_KILL_PROCESS);
  }
}

TEST(FilterWithArm32, AllowsTimesOf64BitsAndArmsPrivateCalls) {
  const Program spawner = WithArm32(FilterPart::kWidened);
  for (const char* name :
       {"clock_gettime64", "clock_nanosleep_time64", "clock_getres_time64", "futex_time64",
        "ppoll_time64", "pselect6_time64", "recvmmsg_time64", "rt_sigtimedwait_time64",
        "sched_rr_get_interval_time64", "semtimedop_time64", "timer_gettime64", "timer_settime64",
        "timerfd_gettime64", "timerfd_settime64", "utimensat_time64", "mmap2", "fstat64",
        "arm_fadvise64_64", "arm_sync_file_range"}) {
    EXPECT_EQ(BpfEvaluator(spawner).Run(Arm32Call(name)), SECCOMP_RET_ALLOW) << name;
  }
  const auto answer = [&](uint32_t number) {
    return BpfEvaluator(spawner).Run(Call(Arm32(), kPrivate + number)).value();
  };
  for (const uint32_t number : {1, 2, 5}) EXPECT_EQ(answer(number), SECCOMP_RET_ALLOW) << number;
  for (const uint32_t number : {0, 3, 4, 7}) EXPECT_EQ(answer(number), Errno(ENOSYS)) << number;
}

TEST(FilterWithArm32, RefusesWhatTheListRefuses) {
  const Program spawner = WithArm32(FilterPart::kWidened);
  const Program counted = WithArm32(FilterPart::kCounted);
  for (const char* name : {"mount", "umount2", "ptrace", "bpf", "setns", "unshare", "keyctl",
                           "reboot", "settimeofday", "clock_settime"}) {
    EXPECT_EQ(BpfEvaluator(spawner).Run(Arm32Call(name)), Errno(EPERM)) << name;
    EXPECT_EQ(BpfEvaluator(counted).Run(Arm32Call(name)), SECCOMP_RET_USER_NOTIF) << name;
  }
  for (const char* name : {"clone3", "io_uring_setup", "clock_settime64", "vmsplice"}) {
    EXPECT_EQ(BpfEvaluator(spawner).Run(Arm32Call(name)), Errno(ENOSYS)) << name;
  }
  EXPECT_EQ(BpfEvaluator(spawner).Run(Arm32Call("setuid32", 65536)), Errno(EINVAL));
  EXPECT_EQ(BpfEvaluator(spawner).Run(Arm32Call("socket", 40)), Errno(EAFNOSUPPORT));
  EXPECT_EQ(BpfEvaluator(spawner).Run(Arm32Call("personality", 0x40000)), Errno(EPERM));
}

TEST(FilterWithArm32, NamesWhatItAsksAbout) {
  const Program counted = WithArm32(FilterPart::kCounted);
  const auto names = RefusedNames(TheLists().list, Arm32()).value();
  EXPECT_LE(names.size(), kMostRefusedOfOneAbi);
  for (const uint32_t number : AllNumbers()) {
    for (const uint64_t value : kValues) {
      const auto answer = BpfEvaluator(counted).Run(Call(Arm32(), number, value));
      if (answer != SECCOMP_RET_USER_NOTIF) continue;
      const auto named = [&](const RefusedName& n) { return n.number == number; };
      EXPECT_TRUE(std::any_of(names.begin(), names.end(), named)) << number;
    }
  }
}

// What this very build has: the same where it is for arm64, and nothing elsewhere.
TEST(FilterWithArm32, IsInBuildsForArm64Only) {
  const bool here = HasArm32(ThisMachine().value());
  EXPECT_EQ(SpawnerFilterWithArm32().size(),
            here ? WithArm32(FilterPart::kWidened).size() : size_t{0});
  EXPECT_EQ(CountingSpawnerFilterWithArm32().empty(), !here);
  EXPECT_EQ(InstanceFilterWithArm32().empty(), !here);
  EXPECT_EQ(RefusedArm32Calls().empty(), !here);
}

}  // namespace
}  // namespace pulga
