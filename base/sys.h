// System calls glibc 2.36 does not wrap, and the hook by which fault tests fail the n-th call.
// Code that must clean up after a failing call writes PULGA_SYS(mount, a, b, c, d, e) for
// mount(a, b, c, d, e): the same call, but failable by a test. Calls pass errno through.
#pragma once

#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/types.h>
#include <sys/uio.h>

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
// As if `root_fd` were the root: absolute paths and links, and "..", stay inside; no magic links.
// O_CLOEXEC is added; nothing is created. Before Linux 5.6 walked step by step.
int OpenInRoot(int root_fd, const char* path, int flags);
int PidfdOpen(pid_t pid);
int PidfdSendSignal(int pidfd, int signo);
// Bytes it was asked for, as far as that went.
ssize_t ProcessMadvise(int pidfd, const iovec* ranges, size_t count, int advice);
long Clone3(const clone_args& args);
int CloseRange(unsigned first, unsigned last, unsigned flags);
int PivotRoot(const char* new_root, const char* put_old);
// mount, unshare and setns with a mark in the last argument register, which the kernel does not
// look at here: it tells a spawner's filter (sandbox/spawner_syscalls.txt) that set-up is asking,
// and not a function. The filter of an instance, the last step of its set-up, refuses marked calls.
inline constexpr uint32_t kSetupMark = 0x50554c47;
int MarkedMount(const char* source, const char* target, const char* type, unsigned long flags,
                const void* data);
int MarkedUnshare(int flags);
int MarkedSetNs(int fd, int type);
int Seccomp(unsigned operation, unsigned flags, void* args);
int MemfdCreate(const char* name, unsigned flags);
// Of the calling thread; effective = permitted.
int SetCapabilities(uint64_t permitted, uint64_t inheritable);
int GetPermittedCapabilities(uint64_t* permitted);
// A copy of the mount of `dir_fd` alone, its root there; attached nowhere yet.
int CloneMount(int dir_fd);
int AttachMount(int mount_fd, const char* target);
// MOUNT_ATTR_*, of a mount that is attached nowhere; and, by MOUNT_ATTR_IDMAP, whose ids its files
// have: those of the user namespace. Linux 5.12.
int SetMountAttributes(int mount_fd, uint64_t attributes, int user_namespace_fd);
// Linux 5.14; of the file system that `fd` lies on.
int QuotactlFd(int fd, unsigned command, uint32_t id, void* argument);

}  // namespace pulga::sys
