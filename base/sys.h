// System calls glibc 2.36 does not wrap, and the hook by which fault tests fail the n-th call.
// Code that must clean up after a failing call writes PULGA_SYS(mount, a, b, c, d, e) for
// mount(a, b, c, d, e): the same call, but failable by a test. Calls pass errno through.
#pragma once

#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/types.h>

#include <cstdint>

namespace pulga::sys {

// Fault injection, for tests: the n-th PULGA_SYS call from now fails with `sys_errno`; 0 disarms.
void FailNthCall(int n, int sys_errno);
// Calls counted since FailNthCall; tells a sweep when the operation needs no n-th call any more.
int CallsSeen();
// From now on processes forked from here count together with this one. For tests, once, early.
void ShareFaultsWithChildren();
// True when the current call must fail; sets errno. Async-signal-safe.
bool Faulted();

#define PULGA_SYS(call, ...) (::pulga::sys::Faulted() ? -1 : call(__VA_ARGS__))

int OpenAt2(int dir_fd, const char* path, const open_how& how);
// O_CLOEXEC is added. Fails like open(2). Resolves nothing outside dir_fd, follows no symlink.
int OpenBeneath(int dir_fd, const char* path, int flags, mode_t mode = 0);
int PidfdOpen(pid_t pid);
int PidfdSendSignal(int pidfd, int signo);
long Clone3(const clone_args& args);
int CloseRange(unsigned first, unsigned last, unsigned flags);
int PivotRoot(const char* new_root, const char* put_old);
int Seccomp(unsigned operation, unsigned flags, void* args);
int MemfdCreate(const char* name, unsigned flags);

}  // namespace pulga::sys
