#include "base/arm32.h"

#include <elf.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/process.h"
#include "base/sys.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

#if defined(__aarch64__) || defined(__arm__)
constexpr bool kIsArm = true;
#else
constexpr bool kIsArm = false;
#endif
constexpr unsigned kMfdExec =
    0x10;  // since Linux 6.3; where vm.memfd_noexec is 1 it has to be said

// A page of 64 KiB is the largest of ARM's: aligned to it a program loads with any.
constexpr uint32_t kAlign = 0x10000;

struct SmallestProgram {
  Elf32_Ehdr head;
  Elf32_Phdr segment;
  uint32_t code[3];
};

SmallestProgram MakeProgram() {
  SmallestProgram out = {};
  memcpy(out.head.e_ident, ELFMAG, SELFMAG);
  out.head.e_ident[EI_CLASS] = ELFCLASS32;
  out.head.e_ident[EI_DATA] = ELFDATA2LSB;
  out.head.e_ident[EI_VERSION] = EV_CURRENT;
  out.head.e_type = ET_EXEC;
  out.head.e_machine = EM_ARM;
  out.head.e_version = EV_CURRENT;
  out.head.e_entry = kAlign + offsetof(SmallestProgram, code);
  out.head.e_phoff = offsetof(SmallestProgram, segment);
  out.head.e_flags = EF_ARM_EABI_VER5;
  out.head.e_ehsize = sizeof out.head;
  out.head.e_phentsize = sizeof out.segment;
  out.head.e_phnum = 1;
  out.segment = {PT_LOAD, 0, kAlign, kAlign, sizeof out, sizeof out, PF_R | PF_X, kAlign};
  out.code[0] = 0xe3a00000;  // mov r0, #0
  out.code[1] = 0xe3a07001;  // mov r7, #1: exit
  out.code[2] = 0xef000000;  // svc #0
  return out;
}

Error Refused(const char* how) {
  return Error{Code::kUnsupported, 0,
               std::string("this board runs no 32-bit ARM programs (") + how +
                   "): its processor has no 32-bit mode, or its kernel no CONFIG_COMPAT"};
}

}  // namespace

Status RunArm32Program() {
  if (!kIsArm) return Refused("it is none of ARM's");  // what runs them there is an emulator
  UniqueFd file(PULGA_SYS(sys::MemfdCreate, "arm32", MFD_CLOEXEC | kMfdExec));
  if (!file.valid() && errno == EINVAL) file.Reset(sys::MemfdCreate("arm32", MFD_CLOEXEC));
  if (!file.valid()) return LastError("try a 32-bit ARM program");
  const SmallestProgram program = MakeProgram();
  if (PULGA_SYS(write, file.get(), &program, sizeof program) != sizeof program) {
    return LastError("try a 32-bit ARM program: write");
  }
  SpawnOptions options;
  options.argv = {"/proc/self/fd/3"};
  options.fds = {{file.get(), 3}};
  auto child = SpawnProcess(options);
  if (!child.ok()) {
    if (child.error().sys_errno == ENOEXEC) return Refused("ENOEXEC");
    return Prefix("try a 32-bit ARM program", child.error());
  }
  PULGA_ASSIGN_OR_RETURN(const ExitInfo end, child->Reap());
  if (WIFEXITED(end.wait_status) && WEXITSTATUS(end.wait_status) == 0) return OkStatus();
  return Refused(WIFSIGNALED(end.wait_status) ? "it was killed" : "it failed");
}

}  // namespace pulga
