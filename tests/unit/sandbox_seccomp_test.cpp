// The compiled programs are proven in user space, against filters libseccomp makes of the same
// list.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/id_ranges.h"
#include "sandbox/seccomp_list.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/seccomp_program.h"
#include "tests/support/bpf_evaluator.h"

namespace pulga {
namespace {

using testing::BpfEvaluator;

constexpr uint32_t Errno(uint32_t number) { return SECCOMP_RET_ERRNO | number; }
constexpr uint64_t kLow = 0xffffffff;

struct Here {
  uint32_t audit_arch;
  const char* name;
};

Here ThisMachine() {
  switch (seccomp_arch_native()) {
    case SCMP_ARCH_X86_64:
      return {AUDIT_ARCH_X86_64, "x86_64"};
    case SCMP_ARCH_AARCH64:
      return {AUDIT_ARCH_AARCH64, "arm64"};
    default:
      return {AUDIT_ARCH_ARM, "arm"};
  }
}

seccomp_data Call(uint32_t number, std::initializer_list<uint64_t> args = {}) {
  seccomp_data data = {};
  data.nr = static_cast<int>(number);
  data.arch = ThisMachine().audit_arch;
  size_t i = 0;
  for (const uint64_t arg : args) data.args[i++] = arg;
  return data;
}

// Of this machine; negative where it has no such call.
int NumberOf(const std::string& name) {
  return seccomp_syscall_resolve_name_arch(SCMP_ARCH_NATIVE, name.c_str());
}

uint32_t ToLibseccomp(uint32_t action) {
  if ((action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO) {
    return SCMP_ACT_ERRNO(action & SECCOMP_RET_DATA);
  }
  return action;  // the other constants are the same
}

// A filter libseccomp makes, as a program.
class Reference {
 public:
  explicit Reference(uint32_t default_action) : context_(Context(default_action)) {
    seccomp_attr_set(context_, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;
  ~Reference() { seccomp_release(context_); }

  void Add(uint32_t action, int number, const std::vector<scmp_arg_cmp>& tests = {}) {
    const int result = seccomp_rule_add_array(context_, ToLibseccomp(action), number,
                                              static_cast<unsigned>(tests.size()), tests.data());
    ASSERT_TRUE(result == 0 || result == -EACCES) << number << ": " << result;  // EACCES: default
  }

  std::vector<sock_filter> Program() const {
    const UniqueFd fd(sys::MemfdCreate("filter", 0));
    EXPECT_EQ(seccomp_export_bpf(context_, fd.get()), 0);
    std::vector<sock_filter> program(static_cast<size_t>(lseek(fd.get(), 0, SEEK_END)) /
                                     sizeof(sock_filter));
    EXPECT_GT(pread(fd.get(), program.data(), program.size() * sizeof(sock_filter), 0), 0);
    return program;
  }

 private:
  // It writes programs here and loads none: what the kernel, or an emulator of one, can do is no
  // matter.
  static scmp_filter_ctx Context(uint32_t default_action) {
    constexpr unsigned kWithUserNotif = 5;
    EXPECT_EQ(seccomp_api_set(kWithUserNotif), 0);
    return seccomp_init(ToLibseccomp(default_action));
  }

  scmp_filter_ctx context_;
};

SyscallList TheList(const char* file) {
  const auto text = ReadFile(std::string(PULGA_SOURCE_DIR) + "/" + file);
  EXPECT_TRUE(text.ok());
  auto list = ParseSyscallList(*text, ThisMachine().name);
  EXPECT_TRUE(list.ok()) << list.error().message;
  return *list;
}

bool IsConditional(const SyscallRule& rule) {
  return rule.clauses.size() > 1 || !rule.clauses[0].tests.empty();
}

// Numbers worth asking about: all the kernels have, ARM's private ones, x32's, and the odd ends.
std::vector<uint32_t> AllNumbers() {
  std::vector<uint32_t> numbers;
  for (uint32_t n = 0; n <= 600; ++n) numbers.push_back(n);
  for (uint32_t n = 0xf0000; n <= 0xf0006; ++n) numbers.push_back(n);
  for (uint32_t n = 0x40000000; n <= 0x40000258; ++n) numbers.push_back(n);
  for (const uint32_t n : {0x3fffffffU, 0x7fffffffU, 0x80000000U, 0xfffffffeU, 0xffffffffU}) {
    numbers.push_back(n);
  }
  return numbers;
}

void ExpectSameAnswers(const SyscallList& list, std::span<const sock_filter> ours) {
  Reference reference(list.default_action);
  std::map<uint32_t, std::string> conditional;
  for (const SyscallRule& rule : list.rules) {
    const int number = NumberOf(rule.name);
    if (number < 0) continue;
    if (IsConditional(rule))
      conditional[static_cast<uint32_t>(number)] = rule.name;
    else
      reference.Add(rule.clauses[0].action, number);
  }
  const std::vector<sock_filter> theirs = reference.Program();
  for (const uint32_t number : AllNumbers()) {
    if (conditional.contains(number)) continue;
    EXPECT_EQ(BpfEvaluator(ours).Run(Call(number)), BpfEvaluator(theirs).Run(Call(number)))
        << "call " << number;
  }
}

TEST(SeccompProfile, AnswersEveryCallNumberAsLibseccompWould) {
  ExpectSameAnswers(TheList("sandbox/syscalls.txt"), FunctionFilter());
}

TEST(SeccompProfile, SpawnerListAnswersAsLibseccompWould) {
  const SyscallList more = TheList("sandbox/spawner_syscalls.txt");
  const SyscallList widened = Widened(TheList("sandbox/syscalls.txt"), more);
  ExpectSameAnswers(widened, SpawnerFilter());
  ExpectSameAnswers(Counted(widened), CountingSpawnerFilter());
}

TEST(SeccompProfile, SpawnerMayDoNothingMoreThanSetInstancesUp) {
  std::vector<std::string> names;
  for (const SyscallRule& rule : TheList("sandbox/spawner_syscalls.txt").rules) {
    names.push_back(rule.name);
  }
  EXPECT_THAT(names,
              ::testing::UnorderedElementsAre("clone", "clone3", "mount", "setns", "unshare"));
}

TEST(SeccompProfile, IsSmallEnoughToLoadFast) {
  EXPECT_LT(FunctionFilter().size(), 200U);
  EXPECT_LT(SpawnerFilter().size(), 220U);
  EXPECT_LT(CountingSpawnerFilter().size(), 220U);
  EXPECT_LT(InstanceFilter().size(), 40U);  // paid by every start
}

TEST(SeccompProfile, WrongArchitectureKillsTheProcess) {
  for (const uint32_t arch : std::vector<uint32_t>{AUDIT_ARCH_I386, AUDIT_ARCH_MIPS, 0, ~0U}) {
    seccomp_data data = Call(static_cast<uint32_t>(NumberOf("read")));
    data.arch = arch;
    EXPECT_EQ(BpfEvaluator(FunctionFilter()).Run(data), SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(BpfEvaluator(SpawnerFilter()).Run(data), SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(BpfEvaluator(CountingSpawnerFilter()).Run(data), SECCOMP_RET_KILL_PROCESS);
  }
}

TEST(SeccompProfile, X32CallsKillTheProcess) {
  if (seccomp_arch_native() != SCMP_ARCH_X86_64) return;  // no x32 elsewhere
  EXPECT_EQ(BpfEvaluator(FunctionFilter()).Run(Call(0x40000000)), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(BpfEvaluator(FunctionFilter()).Run(Call(0x40000000 + 59)), SECCOMP_RET_KILL_PROCESS);
}

// The conditional rules, written down a second time, after the contract's words.
struct ConditionalCase {
  const char* name;
  uint32_t otherwise;
  uint32_t action;
  std::vector<std::vector<scmp_arg_cmp>> alternatives;
  unsigned arg;
};

scmp_arg_cmp Masked(unsigned arg, uint64_t mask, uint64_t value) {
  return {arg, SCMP_CMP_MASKED_EQ, mask, value};
}

std::vector<std::vector<scmp_arg_cmp>> AnyOf(unsigned arg, uint64_t mask,
                                             std::initializer_list<uint64_t> values) {
  std::vector<std::vector<scmp_arg_cmp>> out;
  for (const uint64_t value : values) out.push_back({Masked(arg, mask, value)});
  return out;
}

std::vector<ConditionalCase> ConditionalCases() {
  auto socket = AnyOf(0, kLow, {1, 2, 10});
  socket.push_back({Masked(0, kLow, 16), Masked(2, kLow, 0)});
  constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
  return {
      {"clone", Errno(EPERM), kAllow, AnyOf(0, 0x7E020000, {0}), 0},
      {"socket", Errno(EAFNOSUPPORT), kAllow, socket, 0},
      {"ioctl", kAllow, Errno(EPERM), AnyOf(1, kLow, {0x5412, 0x541C}), 1},
      {"personality", Errno(EPERM), kAllow, AnyOf(0, kLow, {0, 8, 0x20000, 0x20008, 0xffffffff}),
       0},
      {"mknod", Errno(EPERM), kAllow, AnyOf(1, 0xF000, {0, 0x8000, 0x1000, 0xC000}), 1},
      {"mknodat", Errno(EPERM), kAllow, AnyOf(2, 0xF000, {0, 0x8000, 0x1000, 0xC000}), 2},
      {"sched_setscheduler", Errno(EPERM), kAllow, AnyOf(1, kLow, {0, 3, 5}), 1},
  };
}

// An id of a spawner in any argument that takes an id.
std::vector<ConditionalCase> IdCases() {
  std::vector<ConditionalCase> cases;
  for (const auto& [name, args] :
       {std::pair("setuid", 1U), std::pair("setgid", 1U), std::pair("setreuid", 2U),
        std::pair("setregid", 2U), std::pair("setresuid", 3U), std::pair("setresgid", 3U)}) {
    std::vector<std::vector<scmp_arg_cmp>> any;
    for (unsigned arg = 0; arg < args; ++arg) any.push_back({Masked(arg, kLow, kSpawnerInnerId)});
    for (unsigned arg = 0; arg < 4; ++arg) {
      cases.push_back({name, SECCOMP_RET_ALLOW, Errno(EINVAL), any, arg});
    }
  }
  return cases;
}

std::vector<uint64_t> InterestingValues() {
  std::vector<uint64_t> values = {0x1ff,   0666 | 0x6000, 0644 | 0x2000,
                                  0x20008, 0x20009,       0xffffffff};
  for (uint64_t v = 0; v < 48; ++v) values.push_back(v);
  for (unsigned bit = 0; bit < 64; ++bit) values.push_back(1ULL << bit);
  for (uint64_t type = 0; type < 16; ++type) values.push_back(type << 12 | 0644);
  for (uint64_t v = 0x5410; v <= 0x5420; ++v) values.push_back(v);
  const std::vector<uint64_t> plain = values;
  for (const uint64_t v : plain)
    values.push_back(v | 0xdeadbeef00000000);  // the kernel sees 32 bits
  return values;
}

TEST(SeccompProfile, ArgumentRulesDecideAsTheContractSays) {
  std::vector<ConditionalCase> cases = ConditionalCases();
  for (ConditionalCase& c : IdCases()) cases.push_back(std::move(c));
  for (const ConditionalCase& c : cases) {
    const int number = NumberOf(c.name);
    if (number < 0) continue;  // arm64 has no mknod
    Reference reference(c.otherwise);
    for (const auto& tests : c.alternatives) reference.Add(c.action, number, tests);
    const std::vector<sock_filter> theirs = reference.Program();
    for (const uint64_t value : InterestingValues()) {
      for (const uint64_t other : {0ULL, 9ULL}) {  // netlink's protocol
        seccomp_data data = Call(static_cast<uint32_t>(number), {other, other, other, other});
        data.args[c.arg] = value;
        EXPECT_EQ(BpfEvaluator(FunctionFilter()).Run(data), BpfEvaluator(theirs).Run(data))
            << c.name << " " << std::hex << value << " other " << other;
      }
    }
  }
}

// The kernel's own rule: all programs run, the newest first, and the strictest answer counts.
uint32_t AnswerOfBoth(const seccomp_data& data, std::span<const sock_filter> spawners) {
  const uint32_t newest = BpfEvaluator(InstanceFilter()).Run(data).value();
  const uint32_t older = BpfEvaluator(spawners).Run(data).value();
  const auto rank = [](uint32_t r) { return static_cast<int32_t>(r & SECCOMP_RET_ACTION_FULL); };
  return rank(older) < rank(newest) ? older : newest;
}

TEST(SeccompProfile, TheTwoProgramsOfAnInstanceTogetherAnswerAsTheWholeList) {
  const std::vector<uint64_t> values = InterestingValues();
  for (const uint32_t number : AllNumbers()) {
    for (const uint64_t value : values) {
      const seccomp_data data = Call(number, {value, value, value, value});
      ASSERT_EQ(AnswerOfBoth(data, SpawnerFilter()), BpfEvaluator(FunctionFilter()).Run(data))
          << "call " << number << " " << std::hex << value;
    }
  }
}

const RefusedCall* FindRefused(uint32_t number) {
  for (const RefusedCall& call : RefusedCalls()) {
    if (call.number == number) return &call;
  }
  return nullptr;
}

TEST(SeccompProfile, WithAListenerWhatIsRefusedIsAskedAboutAndNothingElseChanges) {
  const std::vector<uint64_t> values = InterestingValues();
  for (const uint32_t number : AllNumbers()) {
    for (const uint64_t value : values) {
      const seccomp_data data = Call(number, {value, value, value, value});
      const uint32_t whole = BpfEvaluator(FunctionFilter()).Run(data).value();
      const uint32_t answer = AnswerOfBoth(data, CountingSpawnerFilter());
      if (!IsRefusal(whole)) {
        ASSERT_EQ(answer, whole) << "call " << number << " " << std::hex << value;
        continue;
      }
      ASSERT_EQ(answer, SECCOMP_RET_USER_NOTIF) << "call " << number << " " << std::hex << value;
      const RefusedCall* refused = FindRefused(number);
      ASSERT_NE(refused, nullptr) << "call " << number;
      EXPECT_EQ(Errno(static_cast<uint32_t>(refused->sys_errno)), whole) << refused->name;
      EXPECT_EQ(NumberOf(refused->name), static_cast<int>(number));
    }
  }
}

TEST(SeccompProfile, TheMarkOfSetupHelpsNoFunction) {
  for (const auto spawners : {SpawnerFilter(), CountingSpawnerFilter()}) {
    for (const uint32_t number : AllNumbers()) {
      for (const uint64_t value : {uint64_t{0}, uint64_t{CLONE_NEWUSER}, uint64_t{SIGCHLD}}) {
        seccomp_data data = Call(number, {value, value, value, value});
        data.args[5] = sys::kSetupMark;
        const uint32_t whole = BpfEvaluator(FunctionFilter()).Run(data).value();
        const uint32_t both = AnswerOfBoth(data, spawners);
        EXPECT_EQ(both == SECCOMP_RET_ALLOW, whole == SECCOMP_RET_ALLOW) << "call " << number;
        const bool silent = (both & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO;
        const bool counts = spawners.data() == CountingSpawnerFilter().data();
        EXPECT_FALSE(counts && IsRefusal(whole) && silent) << "call " << number;
      }
    }
  }
}

TEST(SeccompProfile, ASpawnerMayUseItsToolsByTheMarkAlone) {
  for (const char* name : {"clone", "mount", "setns", "unshare"}) {
    seccomp_data data = Call(static_cast<uint32_t>(NumberOf(name)), {CLONE_NEWUSER});
    EXPECT_EQ(BpfEvaluator(SpawnerFilter()).Run(data), Errno(EPERM)) << name;
    data.args[5] = 0xdeadbeef00000000 | sys::kSetupMark;
    EXPECT_EQ(BpfEvaluator(SpawnerFilter()).Run(data), SECCOMP_RET_ALLOW) << name;
    EXPECT_EQ(BpfEvaluator(CountingSpawnerFilter()).Run(data), SECCOMP_RET_ALLOW) << name;
  }
}

TEST(SeccompProfile, SyncIsAnsweredWithoutDoingIt) {
  for (const char* name : {"sync", "syncfs"}) {
    const auto number = static_cast<uint32_t>(NumberOf(name));
    EXPECT_EQ(BpfEvaluator(FunctionFilter()).Run(Call(number)), Errno(0));
  }
}

TEST(SeccompProfile, NamesWhatMayHappenAsTheContractCountsIt) {
  size_t allowed = 0, denied = 0;
  for (const SyscallRule& rule : TheList("sandbox/syscalls.txt").rules) {
    if (IsConditional(rule)) continue;
    allowed += rule.clauses[0].action == SECCOMP_RET_ALLOW;
    denied += rule.clauses[0].action == Errno(EPERM);
  }
  const bool x86 = seccomp_arch_native() == SCMP_ARCH_X86_64;
  constexpr size_t kBoundByTheSpawnersId = 12;  // setuid and its like: the contract allows them
  EXPECT_EQ(allowed + kBoundByTheSpawnersId, 301U + (x86 ? 1 : 6));
  EXPECT_EQ(denied, 55U);
}

// No capability of theirs would be left either: what the kernel answers proves no filter.
TEST(SeccompProfile, RefusesWhatIsForTheHostAlone) {
  for (const char* name : {"mount",
                           "umount2",
                           "mount_setattr",
                           "move_mount",
                           "open_tree",
                           "fsopen",
                           "fsconfig",
                           "fsmount",
                           "fspick",
                           "pivot_root",
                           "chroot",
                           "unshare",
                           "setns",
                           "ptrace",
                           "bpf",
                           "perf_event_open",
                           "userfaultfd",
                           "keyctl",
                           "add_key",
                           "request_key",
                           "init_module",
                           "finit_module",
                           "delete_module",
                           "kexec_load",
                           "reboot",
                           "swapon",
                           "swapoff",
                           "quotactl",
                           "acct",
                           "clock_settime",
                           "settimeofday",
                           "sethostname",
                           "setdomainname",
                           "syslog",
                           "open_by_handle_at",
                           "process_vm_readv",
                           "process_vm_writev",
                           "kcmp",
                           "pidfd_getfd",
                           "mbind",
                           "move_pages",
                           "migrate_pages",
                           "set_mempolicy",
                           "vhangup",
                           "fanotify_init"}) {
    const int number = NumberOf(name);
    if (number < 0) continue;
    EXPECT_EQ(BpfEvaluator(FunctionFilter()).Run(Call(static_cast<uint32_t>(number))), Errno(EPERM))
        << name;
  }
}

TEST(SeccompList, ErrorsNameTheLine) {
  const auto message = [](std::string_view text) {
    const auto list = ParseSyscallList(text, "x86_64");
    return list.ok() ? std::string("ok") : list.error().message;
  };
  EXPECT_EQ(message("[default: ENOSYS]\n[allow]\nread\nread\n"), "line 4: read is named twice");
  EXPECT_EQ(message("[allow]\nread"), "line 2: no [default: ...] section");
  EXPECT_EQ(message("[default: allow]\n[wish]"), "line 2: unknown section [wish]");
  EXPECT_EQ(message("read"), "line 1: names outside a section");
  EXPECT_THAT(message("[conditional]\nclone: arg9 in 0 -> allow; EPERM"),
              ::testing::HasSubstr("line 2"));
}

TEST(SeccompList, ListedMeansAsTheListThatIsWidenedSays) {
  const auto parse = [](std::string_view text) { return ParseSyscallList(text, "arm").value(); };
  const auto list = parse("[default: ENOSYS]\n[conditional]\nx: arg0 in 1 -> allow; EPERM");
  const auto more = parse(
      "[default: ENOSYS]\n[conditional]\nx: arg5 in 7 -> allow; listed\n"
      "y: arg5 in 7 -> allow; listed");
  const ArgTest mark = {5, 0xffffffff, {7}};
  const ArgTest one = {0, 0xffffffff, {1}};
  const auto wide = Widened(list, more);
  EXPECT_THAT(wide.rules[0].clauses,
              ::testing::ElementsAre(Clause{{mark}, SECCOMP_RET_ALLOW},
                                     Clause{{one}, SECCOMP_RET_ALLOW}, Clause{{}, Errno(EPERM)}));
  EXPECT_THAT(wide.rules[1].clauses,
              ::testing::ElementsAre(Clause{{mark}, SECCOMP_RET_ALLOW}, Clause{{}, Errno(ENOSYS)}));
  EXPECT_THAT(RestOf(list, more).rules[0].clauses,
              ::testing::ElementsAre(Clause{{mark, one}, SECCOMP_RET_ALLOW},
                                     Clause{{mark}, SECCOMP_RET_KILL_PROCESS},
                                     Clause{{}, SECCOMP_RET_ALLOW}));
}

TEST(SeccompList, ARuleMustEndWithAnUnconditionalAnswer) {
  EXPECT_FALSE(
      ParseSyscallList("[default: allow]\n[conditional]\nx: arg0 in 1 -> allow", "arm").ok());
}

TEST(SeccompProgram, RefusesListsWhoseJumpsDoNotFit) {
  NumberedRules rules{AUDIT_ARCH_AARCH64, SECCOMP_RET_ALLOW, {}};
  for (uint32_t n = 0; n < 1200; n += 2) rules.rules[n] = {Clause{{}, Errno(EPERM)}};
  const auto program = BuildSeccompProgram(rules);
  ASSERT_FALSE(program.ok());
  EXPECT_EQ(program.error().code, Code::kTooLarge);
}

}  // namespace
}  // namespace pulga
