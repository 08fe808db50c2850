// A system call list (sandbox/syscalls.txt) as text, and as rules. Build time and tests only; pure.
// Format: "[section]" lines, then names parted by blanks, "#" begins a comment. Sections:
//   [default: ACTION]            what every call not named gets; must be there
//   [ACTION]                     ACTION is allow or an errno name; words after it are a remark
//                                ("listed", where one list widens another: as that one says)
//   [ACTION: x86_64 arm64 only]  the names count on these machines only
//   [conditional]                one rule a line: NAME: TESTS -> ACTION; ...; ACTION
//                                TESTS: arg1 & 0xF000 in 0 0x8000 and arg2 in 7
// Tests see the low 32 bits of an argument, which is all the kernel itself takes of these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

struct ArgTest {
  uint32_t arg = 0;
  uint32_t mask = 0xffffffff;
  std::vector<uint32_t> values;  // passes when (arg & mask) is one of them
  bool operator==(const ArgTest&) const = default;
};

struct Clause {
  std::vector<ArgTest> tests;  // all must pass; none: always
  uint32_t action = 0;         // a SECCOMP_RET_* value
  bool operator==(const Clause&) const = default;
};

inline constexpr uint32_t kAsListed = 0xffffffff;  // no kernel's action; Widened replaces it

struct SyscallRule {
  std::string name;
  std::vector<Clause> clauses;  // the first that passes decides; the last has no tests
};

struct SyscallList {
  uint32_t default_action = 0;
  std::vector<SyscallRule> rules;
};

// `machine` is x86_64, arm64 or arm. Errors name the line.
Result<SyscallList> ParseSyscallList(std::string_view text, const std::string& machine);

// One list as two that may be loaded after one another, the kernel taking the stricter answer:
// `list` with every call named by `more` answered as `more` says, ...
SyscallList Widened(SyscallList list, const SyscallList& more);
// ... and what `list` says of just those that `more` allows; anything else is allowed. Both
// together answer as `list` alone, where `more` knows allow and listed only.
SyscallList RestOf(const SyscallList& list, const SyscallList& more);

// An errno by which calls are refused; not that of calls said not to be there at all, which
// programs try out, nor the 0 of those answered without doing them.
bool IsRefusal(uint32_t action);
// `list` with each refusal left to whoever listens to the filter (SECCOMP_RET_USER_NOTIF).
SyscallList Counted(SyscallList list);

}  // namespace pulga
