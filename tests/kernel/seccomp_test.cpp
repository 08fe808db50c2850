// The function filter, loaded: what the list denies is denied, with the errno it says.
#include "base/seccomp.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <thread>

#include "base/sys.h"
#include "sandbox/child_setup.h"
#include "sandbox/id_ranges.h"
#include "sandbox/privileges.h"
#include "sandbox/refusals.h"
#include "sandbox/seccomp_profile.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

using testing::RunInChild;

// The errno of `call` under the functions' filter; 0 = it worked, 250 = the filter did not load.
template <typename Call>
int UnderPlainFilter(Call call) {
  return RunInChild([&] {
    if (!NoNewPrivs().ok() || LoadSeccomp(SpawnerFilter()) != 0) return 250;
    if (LoadSeccomp(InstanceFilter()) != 0) return 250;  // as an instance has it
    return call() < 0 ? errno : 0;
  });
}

// The same where refusals are counted, by a parent that stands for the spawner; 251: they cannot be
// here.
template <typename Call>
int UnderCountingFilter(Call call, RefusalRecord* counted) {
  return RunInChild([&] {
    RefusalListener listener;
    int ended[2];
    if (!NoNewPrivs().ok() || listener.Load() != 0 || pipe2(ended, O_CLOEXEC) != 0) return 250;
    if (listener.error() != 0) return 251;
    const pid_t child = testing::StartChild([&] {
      if (LoadSeccomp(InstanceFilter()) != 0) return 250;
      return call() < 0 ? errno : 0;
    });
    close(ended[1]);
    pollfd fds[2] = {{ended[0], POLLIN, 0}, {-1, POLLIN, 0}};
    while (fds[0].revents == 0) {
      const uint64_t now = MonotonicNs();
      fds[1].fd = listener.fd(now);
      poll(fds, 2, listener.WaitMs(now));
      if (fds[1].revents != 0) listener.AnswerOne(now, *counted);
    }
    const int status = testing::WaitForChild(child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  });
}

// In memory that survives the children who write to it.
RefusalRecord& SharedRecord() {
  static void* memory = mmap(nullptr, sizeof(RefusalRecord), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return *new (memory) RefusalRecord{};
}

// The kernel's own word: a flag it does not know is EINVAL before anything is looked at.
bool HasListeners() {
  const int done = sys::Seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, nullptr);
  return done < 0 && errno == EFAULT;
}

// Whether counted or not the answer is the same.
template <typename Call>
int UnderFilter(Call call) {
  const int plain = UnderPlainFilter(call);
  if (HasListeners()) {
    RefusalRecord& record = SharedRecord();
    EXPECT_EQ(UnderCountingFilter(call, &record), plain) << "where refusals are counted";
    const bool refused = plain != 0 && plain != ENOSYS && plain < 128;
    EXPECT_EQ(record.total, refused ? 1U : 0U) << "errno " << plain;
  }
  return plain;
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
  for (const long kind : {CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWNS, CLONE_NEWIPC,
                          CLONE_NEWUTS, CLONE_NEWCGROUP}) {
    const auto clone = [kind] { return syscall(SYS_clone, kind | SIGCHLD, 0, 0, 0, 0); };
    EXPECT_EQ(UnderFilter(clone), EPERM) << std::hex << kind;
  }
  EXPECT_EQ(UnderFilter([] { return RunInChild([] { return 0; }); }), 0);  // plain fork works
}

TEST(SeccompKernel, DevicesCannotBeMade) {
  EXPECT_DENIED(EPERM, mknod("/tmp/pulga-seccomp-device", S_IFCHR | 0600, makedev(0, 0)));
  EXPECT_DENIED(EPERM, mknod("/tmp/pulga-seccomp-device", S_IFBLK | 0600, makedev(8, 0)));
#ifdef SYS_mknod  // libc asks by mknodat
  EXPECT_DENIED(EPERM, syscall(SYS_mknod, "/tmp/pulga-seccomp-device", S_IFCHR | 0600, 0));
  EXPECT_DENIED(EPERM, syscall(SYS_mknod, "/tmp/pulga-seccomp-device", S_IFBLK | 0600, 0x800));
#endif
  unlink("/tmp/pulga-seccomp-device");
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

TEST(SeccompKernel, NobodyBecomesASpawner) {
  constexpr uid_t kIt = kSpawnerInnerId;
  constexpr long kAny = -1;
  EXPECT_DENIED(EINVAL, syscall(SYS_setuid, kIt));
  EXPECT_DENIED(EINVAL, syscall(SYS_setgid, kIt));
  EXPECT_DENIED(EINVAL, syscall(SYS_setuid, 0xdead000000000000 | kIt));
  EXPECT_DENIED(EINVAL, syscall(SYS_setreuid, kAny, kIt));
  EXPECT_DENIED(EINVAL, syscall(SYS_setregid, kIt, kAny));
  EXPECT_DENIED(EINVAL, syscall(SYS_setresuid, kAny, kAny, kIt));
  EXPECT_DENIED(EINVAL, syscall(SYS_setresuid, kAny, kIt, kAny));
  EXPECT_DENIED(EINVAL, syscall(SYS_setresgid, kAny, kAny, kIt));
  EXPECT_DENIED(0, syscall(SYS_setresuid, kIt - 1, kIt - 1, kIt - 1));
}

TEST(SeccompKernel, SyncAnswersWithoutDoingAnything) {
  EXPECT_DENIED(0, syscall(SYS_syncfs, -1));  // the kernel would say EBADF
  EXPECT_DENIED(0, syscall(SYS_sync));
}

TEST(SeccompKernel, SchedulersAreTheHarmlessThree) {
  static const sched_param none = {0};
  static const sched_param some = {1};
  EXPECT_DENIED(0, sched_setscheduler(0, SCHED_BATCH, &none));
  EXPECT_DENIED(EPERM, sched_setscheduler(0, SCHED_FIFO, &some));
  EXPECT_DENIED(EPERM, sched_setscheduler(0, SCHED_RR, &some));
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
  EXPECT_EQ(under([] { return sys::MarkedUnshare(CLONE_NEWUSER | CLONE_NEWNS); }), 0);
  EXPECT_EQ(under([] { return unshare(CLONE_NEWUSER | CLONE_NEWNS); }), EPERM);
  EXPECT_EQ(under([] { return LoadSeccomp(InstanceFilter()); }), 0);  // its instances need that
}

// As on Linux 4.19: refused as ever, without a count.
TEST(RefusalListener, LoadsThePlainFilterWhereTheKernelHasNoListeners) {
  EXPECT_EQ(RunInChild([] {
              scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
              constexpr uint64_t kListener = SECCOMP_FILTER_FLAG_NEW_LISTENER;
              if (filter == nullptr ||
                  seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(seccomp), 1,
                                   SCMP_A1(SCMP_CMP_MASKED_EQ, kListener, kListener)) != 0 ||
                  seccomp_load(filter) != 0) {
                return 249;
              }
              RefusalListener listener;
              if (!NoNewPrivs().ok() || listener.Load() != 0) return 250;
              if (listener.error() != EINVAL || listener.fd(0) >= 0) return 251;
              return syscall(SYS_ptrace, 0, 0, 0, 0) < 0 ? errno : 0;
            }),
            EPERM);
}

TEST(RefusalListener, LoadsThePlainFilterWhereSomebodyListensAlready) {
  if (!HasListeners()) GTEST_SKIP() << "before Linux 5.0";
  EXPECT_EQ(RunInChild([] {
              RefusalListener first, second;
              if (!NoNewPrivs().ok() || first.Load() != 0 || second.Load() != 0) return 250;
              if (second.error() != EBUSY) return 251;
              return syscall(SYS_ptrace, 0, 0, 0, 0) < 0 ? errno : 0;
            }),
            EPERM);
}

TEST(RefusalListener, CountsWhatGrandchildrenAndThreadsAsk) {
  if (!HasListeners()) GTEST_SKIP() << "before Linux 5.0";
  RefusalRecord& record = SharedRecord();
  EXPECT_EQ(
      UnderCountingFilter(
          [] {
            int refused = 0;
            std::thread([&] { refused += mount("a", "/tmp", "tmpfs", 0, nullptr) != 0; }).join();
            refused += RunInChild([] {
                         return RunInChild([] { return unshare(CLONE_NEWUSER) < 0 ? errno : 0; });
                       }) == EPERM;
            return refused == 2 ? 0 : -1;
          },
          &record),
      0);
  EXPECT_EQ(record.total, 2U);
}

}  // namespace
}  // namespace pulga
