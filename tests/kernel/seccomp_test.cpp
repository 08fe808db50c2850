// The function filter, loaded: what the list denies is denied, with the errno it says.
#include "base/seccomp.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <thread>

#include "sandbox/privileges.h"
#include "sandbox/seccomp_profile.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

using testing::RunInChild;

// The errno of `call` under the functions' filter; 0 = it worked, 250 = the filter did not load.
template <typename Call>
int UnderFilter(Call call) {
  return RunInChild([&] {
    if (!NoNewPrivs().ok() || LoadSeccomp(SpawnerFilter()) != 0) return 250;
    if (LoadSeccomp(InstanceFilter()) != 0) return 250;  // as an instance has it
    return call() < 0 ? errno : 0;
  });
}

#define EXPECT_DENIED(error, call) EXPECT_EQ(UnderFilter([] { return call; }), error) << #call

TEST(SeccompKernel, DangerousCallsAreNotPermitted) {
  EXPECT_DENIED(EPERM, unshare(CLONE_NEWUSER));
  EXPECT_DENIED(EPERM, syscall(SYS_mount, "a", "/tmp", "tmpfs", 0, nullptr));
  EXPECT_DENIED(EPERM, syscall(SYS_umount2, "/proc", 0));
  EXPECT_DENIED(EPERM, syscall(SYS_ptrace, 0, 0, 0, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_bpf, 0, nullptr, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_perf_event_open, nullptr, 0, 0, 0, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_userfaultfd, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_keyctl, 0, 0, 0, 0, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_setns, -1, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_chroot, "/"));
  EXPECT_DENIED(EPERM, syscall(SYS_process_vm_readv, 0, nullptr, 0, nullptr, 0, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_open_by_handle_at, 0, nullptr, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_syslog, 3, nullptr, 0));
}

TEST(SeccompKernel, UnlistedAndNewCallsDoNotExist) {
  EXPECT_DENIED(ENOSYS, syscall(SYS_clone3, nullptr, 0));
  EXPECT_DENIED(ENOSYS, syscall(SYS_io_uring_setup, 1, nullptr));
  EXPECT_DENIED(ENOSYS, syscall(SYS_vmsplice, 0, nullptr, 0, 0));
  EXPECT_DENIED(ENOSYS, syscall(SYS_execveat, -1, "", nullptr, nullptr, 0));
  EXPECT_DENIED(ENOSYS, syscall(9999));
}

TEST(SeccompKernel, SocketsAreLimitedToHarmlessFamilies) {
  EXPECT_DENIED(0, socket(AF_UNIX, SOCK_STREAM, 0));
  EXPECT_DENIED(0, socket(AF_INET, SOCK_STREAM, 0));
  EXPECT_DENIED(0, socket(AF_NETLINK, SOCK_RAW, 0));
  EXPECT_DENIED(EAFNOSUPPORT, socket(AF_NETLINK, SOCK_RAW, 9));
  EXPECT_DENIED(EAFNOSUPPORT, socket(AF_PACKET, SOCK_RAW, 0));
  EXPECT_DENIED(EAFNOSUPPORT, socket(AF_ALG, SOCK_SEQPACKET, 0));
  EXPECT_DENIED(EAFNOSUPPORT, socket(AF_VSOCK, SOCK_STREAM, 0));
}

TEST(SeccompKernel, NamespacesCannotBeCloned) {
  EXPECT_DENIED(EPERM, syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0));
  EXPECT_EQ(UnderFilter([] { return RunInChild([] { return 0; }); }), 0);  // plain fork works
}

TEST(SeccompKernel, DevicesCannotBeMade) {
  EXPECT_DENIED(EPERM, mknod("/tmp/pulga-seccomp-device", S_IFCHR | 0600, makedev(0, 0)));
  EXPECT_DENIED(EPERM, mknod("/tmp/pulga-seccomp-device", S_IFBLK | 0600, makedev(8, 0)));
  EXPECT_EQ(UnderFilter([] {
              if (mkfifo("/tmp/pulga-seccomp-fifo", 0600) != 0) return -1;
              return unlink("/tmp/pulga-seccomp-fifo");
            }),
            0);
}

TEST(SeccompKernel, TerminalsCannotBeFed) {
  EXPECT_DENIED(EPERM, ioctl(0, TIOCSTI, ""));
  EXPECT_DENIED(EPERM, ioctl(0, TIOCLINUX, ""));
  EXPECT_DENIED(EPERM, syscall(SYS_ioctl, 0, 0xdead000000005412, ""));
}

TEST(SeccompKernel, SyncAnswersWithoutDoingAnything) {
  EXPECT_DENIED(0, syscall(SYS_syncfs, -1));  // the kernel would say EBADF
}

TEST(SeccompKernel, PersonalitiesAreTheUsualFive) {
  EXPECT_DENIED(0, personality(0xffffffff));
  EXPECT_DENIED(EPERM, personality(ADDR_NO_RANDOMIZE));
}

#ifdef __x86_64__
TEST(SeccompKernel, X32CallsKill) {
  EXPECT_EQ(UnderFilter([] { return syscall(0x40000000 | SYS_getpid); }), 128 + SIGSYS);
}

TEST(SeccompKernel, ThirtyTwoBitEntryKills) {
  EXPECT_EQ(UnderFilter([] {
              long result = 20;  // getpid of the i386 table
              asm volatile("int $0x80" : "+a"(result) : : "memory");
              return result;
            }),
            128 + SIGSYS);
}
#endif

TEST(SeccompKernel, NeedsNoNewPrivs) {
  EXPECT_EQ(RunInChild([] {
              if (geteuid() == 0 && !ClearAllCapabilities().ok()) return 250;
              return LoadSeccomp(FunctionFilter());
            }),
            EACCES);
}

TEST(SeccompKernel, OrdinaryWorkGoesOn) {
  EXPECT_EQ(UnderFilter([] {
              int value = 0;
              std::thread([&] { value = 7; }).join();
              const int fd = open("/proc/self/status", O_RDONLY);
              char buffer[64];
              return value == 7 && read(fd, buffer, sizeof buffer) > 0 && close(fd) == 0 ? 0 : -1;
            }),
            0);
}

TEST(SeccompKernel, TheSpawnersFilterLeavesItItsTools) {
  const auto under = [](auto call) {
    return RunInChild([&] {
      if (!NoNewPrivs().ok() || LoadSeccomp(SpawnerFilter()) != 0) return 250;
      return call() < 0 ? errno : 0;
    });
  };
  EXPECT_EQ(under([] { return syscall(SYS_bpf, 0, nullptr, 0); }), EPERM);
  EXPECT_EQ(under([] { return syscall(SYS_ptrace, 0, 0, 0, 0); }), EPERM);
  EXPECT_EQ(under([] { return syscall(SYS_pivot_root, "/", "/"); }), EPERM);
  EXPECT_EQ(under([] { return syscall(SYS_io_uring_setup, 1, nullptr); }), ENOSYS);
  EXPECT_EQ(under([] { return unshare(CLONE_NEWUSER | CLONE_NEWNS); }), 0);
  EXPECT_EQ(under([] { return LoadSeccomp(InstanceFilter()); }), 0);  // its instances need that
}

}  // namespace
}  // namespace pulga
