#include "sandbox/filter_compiler.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include <map>

#include "sandbox/seccomp_program.h"

namespace pulga {
namespace {

constexpr Machine kArm32 = {"arm", AUDIT_ARCH_ARM, SCMP_ARCH_ARM};
constexpr Machine kMachines[] = {
    {"x86_64", AUDIT_ARCH_X86_64, SCMP_ARCH_X86_64},
    {"arm64", AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64},
    kArm32,
};

int NumberOf(const std::string& name, const Machine& machine) {
  return seccomp_syscall_resolve_name_arch(machine.libseccomp_arch, name.c_str());
}

NumberedRules Resolve(const SyscallList& list, const Machine& machine) {
  NumberedRules out;
  out.audit_arch = machine.audit_arch;
  out.default_action = list.default_action;
  for (const SyscallRule& rule : list.rules) {
    const int number = NumberOf(rule.name, machine);
    if (number >= 0) out.rules[static_cast<uint32_t>(number)] = rule.clauses;
  }
  return out;
}

Status CheckNothingIsListed(const SyscallList& list) {
  for (const SyscallRule& rule : list.rules) {
    for (const Clause& clause : rule.clauses) {
      if (clause.action != kAsListed) continue;
      return Error{Code::kInvalidArgument, 0, rule.name + " widens no list"};
    }
  }
  return OkStatus();
}

// The one errno by which a call is ever refused; 0: it is not.
Result<uint32_t> RefusedBy(const SyscallRule& rule) {
  uint32_t by = 0;
  for (const Clause& clause : rule.clauses) {
    if (!IsRefusal(clause.action)) continue;
    const uint32_t number = clause.action & SECCOMP_RET_DATA;
    if (by != 0 && by != number) {
      return Error{Code::kUnsupported, 0, rule.name + " is refused by more than one errno"};
    }
    by = number;
  }
  return by;
}

// What calls of 32-bit ARM are answered; no program at all where they are answered elsewhere.
Result<std::vector<sock_filter>> ForArm32(const std::string& text, FilterPart part) {
  if (part == FilterPart::kRest) {
    return std::vector<sock_filter>{BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  }
  PULGA_ASSIGN_OR_RETURN(SyscallList list, ParseSyscallList(text, kArm32.name));
  PULGA_RETURN_IF_ERROR(CheckNothingIsListed(list));
  if (part == FilterPart::kCounted) list = Counted(std::move(list));
  return BuildSeccompProgram(Resolve(list, kArm32));
}

}  // namespace

Result<Machine> ThisMachine() {
  for (const Machine& machine : kMachines) {
    if (machine.libseccomp_arch == seccomp_arch_native()) return machine;
  }
  return Error{Code::kUnsupported, 0, "this machine has no system call list"};
}

Machine Arm32() { return kArm32; }

Result<std::vector<sock_filter>> CompileFilter(const FilterLists& lists, FilterPart part,
                                               const Machine& machine) {
  PULGA_ASSIGN_OR_RETURN(SyscallList list, ParseSyscallList(lists.list, machine.name));
  if (part != FilterPart::kWhole) {
    PULGA_ASSIGN_OR_RETURN(const SyscallList more, ParseSyscallList(lists.more, machine.name));
    list = part == FilterPart::kRest ? RestOf(list, more) : Widened(std::move(list), more);
    if (part == FilterPart::kCounted) list = Counted(std::move(list));
  }
  PULGA_RETURN_IF_ERROR(CheckNothingIsListed(list));
  return BuildSeccompProgram(Resolve(list, machine));
}

Result<std::vector<sock_filter>> CompileFilterWithArm32(const FilterLists& lists, FilterPart part,
                                                        const Machine& machine) {
  PULGA_ASSIGN_OR_RETURN(const auto own, CompileFilter(lists, part, machine));
  PULGA_ASSIGN_OR_RETURN(const auto arm32, ForArm32(lists.list, part));
  return ByArchitecture(kArm32.audit_arch, arm32, own);
}

Result<std::vector<RefusedName>> RefusedNames(const std::string& list, const Machine& machine) {
  PULGA_ASSIGN_OR_RETURN(const SyscallList parsed, ParseSyscallList(list, machine.name));
  std::map<uint32_t, RefusedName> sorted;
  for (const SyscallRule& rule : parsed.rules) {
    PULGA_ASSIGN_OR_RETURN(const uint32_t by, RefusedBy(rule));
    const int number = NumberOf(rule.name, machine);
    if (by == 0 || number < 0) continue;
    const auto call = static_cast<uint32_t>(number);
    sorted[call] = {call, by, rule.name};
  }
  std::vector<RefusedName> out;
  for (auto& [number, name] : sorted) out.push_back(std::move(name));
  return out;
}

}  // namespace pulga
