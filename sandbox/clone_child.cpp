#include "sandbox/clone_child.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "base/sys.h"

namespace pulga {
namespace {

// Sanitizers keep per-thread state that a child on a shared stack would spoil.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    !(defined(__x86_64__) || defined(__aarch64__))
constexpr bool kMayShareMemory = false;
#else
constexpr bool kMayShareMemory = true;
#endif

constexpr uint64_t kIntoCgroup = 0x200000000ULL;  // CLONE_INTO_CGROUP, absent from older headers
constexpr size_t kStackBytes = 64 * 1024;
alignas(64) unsigned char g_stack[kStackBytes];

// clone3 with a stack of its own; the child calls entry(argument) there and never returns.
// In assembly because between the system call and the call nothing may touch the old stack.
long Clone3OnStack(const clone_args& args, CloneEntry entry, void* argument) {
#if defined(__x86_64__)
  long ret = SYS_clone3;
  register CloneEntry fn asm("r12") = entry;
  register void* arg asm("r13") = argument;
  asm volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xor %%ebp, %%ebp\n\t"
      "mov %%r13, %%rdi\n\t"
      "call *%%r12\n\t"
      "hlt\n"
      "1:"
      : "+a"(ret)
      : "D"(&args), "S"(sizeof args), "r"(fn), "r"(arg)
      : "rcx", "r11", "memory");
  return ret;
#elif defined(__aarch64__)
  register long number asm("x8") = SYS_clone3;
  register long ret asm("x0") = reinterpret_cast<long>(&args);
  register long size asm("x1") = sizeof args;
  register CloneEntry fn asm("x19") = entry;
  register void* arg asm("x20") = argument;
  asm volatile(
      "svc #0\n\t"
      "cbnz x0, 1f\n\t"
      "mov x29, xzr\n\t"
      "mov x0, x20\n\t"
      "blr x19\n\t"
      "brk #0\n"
      "1:"
      : "+r"(ret)
      : "r"(number), "r"(size), "r"(fn), "r"(arg)
      : "memory");
  return ret;
#else
  (void)args, (void)entry, (void)argument;
  return -ENOSYS;
#endif
}

// Linux < 5.3, or clone3 refused by an outer filter.
pid_t LegacyClone(const CloneOptions& options, CloneEntry entry, void* argument) {
  if (options.cgroup_fd >= 0) return errno = ENOSYS, -1;
  const unsigned long flags =
      static_cast<unsigned long>(options.flags) | static_cast<unsigned long>(options.exit_signal);
  const long pid = syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr,
                           static_cast<unsigned long>(sys::kSetupMark));
  if (pid == 0) {
    entry(argument);
    _exit(127);
  }
  return static_cast<pid_t>(pid);
}

struct ProgramStart {
  CloneEntry entry;
  void* argument;
};

constexpr size_t kStartBytes = 64;  // a stack begins aligned
static_assert(sizeof(ProgramStart) <= kStartBytes);

int ProgramMain(void* raw) {
  const auto* start = static_cast<const ProgramStart*>(raw);
  start->entry(start->argument);
  return 127;
}

}  // namespace

pid_t CloneChild(const CloneOptions& options, CloneEntry entry, void* argument) {
  if (sys::Faulted()) return -1;
  clone_args args = {};
  args.flags = options.flags;
  args.exit_signal = static_cast<uint64_t>(options.exit_signal);
  if (options.cgroup_fd >= 0) {
    args.flags |= kIntoCgroup;
    args.cgroup = static_cast<uint64_t>(options.cgroup_fd);
  }
  long pid;
  if (options.memory == CloneMemory::kVfork && kMayShareMemory) {
    args.flags |= CLONE_VM | CLONE_VFORK;
    args.stack = reinterpret_cast<uintptr_t>(g_stack);
    args.stack_size = sizeof g_stack;
    pid = Clone3OnStack(args, entry, argument);
    if (pid < 0) errno = static_cast<int>(-pid), pid = -1;
  } else {
    pid = sys::Clone3(args);
    if (pid == 0) {
      entry(argument);
      _exit(127);
    }
  }
  if (pid < 0 && errno == ENOSYS) return LegacyClone(options, entry, argument);
  return static_cast<pid_t>(pid);
}

pid_t CloneProgram(CloneMemory memory, CloneEntry entry, void* argument) {
  if (sys::Faulted()) return -1;
  if (memory != CloneMemory::kFork && kMayShareMemory) {
    // At the top of its stack, whose page is written to anyway: each further one is a page fault.
    auto* start = new (g_stack + sizeof g_stack - kStartBytes) ProgramStart{entry, argument};
    const int stop = memory == CloneMemory::kVfork ? CLONE_VFORK : 0;
    return clone(ProgramMain, start, CLONE_VM | stop | SIGCHLD, start);
  }
  const long pid = syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) {
    entry(argument);
    _exit(127);
  }
  return static_cast<pid_t>(pid);
}

}  // namespace pulga
