// System call lists to programs for a machine, and to tables of what they refuse. Build time and
// tests only: the one user of libseccomp, which knows the numbers of every machine's calls on any.
// Names that a machine, or this libseccomp, does not have are skipped. Pure.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "sandbox/seccomp_list.h"

namespace pulga {

struct Machine {
  const char* name;  // as lists call it: x86_64, arm64 or arm
  uint32_t audit_arch;
  uint32_t libseccomp_arch;
};

Result<Machine> ThisMachine();
Machine Arm32();
// Of 32-bit programs that a version may have on `machine`; none but those of ARM on arm64.
inline bool HasArm32(const Machine& machine) { return std::string(machine.name) == "arm64"; }

// Texts of lists; `more` widens `list` (seccomp_list.h).
struct FilterLists {
  std::string list;
  std::string more;
};
enum class FilterPart { kWhole, kWidened, kCounted, kRest };

Result<std::vector<sock_filter>> CompileFilter(const FilterLists& lists, FilterPart part,
                                               const Machine& machine);
// The same, and beside it what programs of 32-bit ARM may call: `list`, nothing more, since what
// sets an instance up is not of that machine; of kRest nothing is left to say.
Result<std::vector<sock_filter>> CompileFilterWithArm32(const FilterLists& lists, FilterPart part,
                                                        const Machine& machine);

struct RefusedName {
  uint32_t number = 0;
  uint32_t sys_errno = 0;
  std::string name;
};
// By number. kUnsupported: a call is refused by one errno here and another there.
Result<std::vector<RefusedName>> RefusedNames(const std::string& list, const Machine& machine);

}  // namespace pulga
