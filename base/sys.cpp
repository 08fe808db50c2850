#include "base/sys.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "base/check.h"
#include "base/unique_fd.h"

namespace pulga::sys {
namespace {

struct Faults {
  std::atomic<int> fail_at{0};
  std::atomic<int> fail_errno{0};
  std::atomic<int> seen{0};
};
Faults g_own_faults;
Faults* g_faults = &g_own_faults;

// openat2 is absent before Linux 5.6: walk component by component with O_NOFOLLOW.
int WalkBeneath(int dir_fd, const std::string& path, int flags, mode_t mode) {
  if (path.empty() || path[0] == '/') return errno = EXDEV, -1;
  UniqueFd here(fcntl(dir_fd, F_DUPFD_CLOEXEC, 3));
  if (!here.valid()) return -1;
  size_t begin = 0;
  while (true) {
    size_t end = path.find('/', begin);
    const std::string part = path.substr(begin, end == std::string::npos ? end : end - begin);
    if (part == "..") return errno = EXDEV, -1;
    if (end == std::string::npos) {
      const char* name = part.empty() ? "." : part.c_str();
      return openat(here.get(), name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
    }
    if (!part.empty() && part != ".") {
      UniqueFd next(
          openat(here.get(), part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!next.valid()) return -1;
      here = std::move(next);
    }
    begin = end + 1;
  }
}

}  // namespace

void FailNthCall(int n, int sys_errno) {
  g_faults->seen = 0;
  g_faults->fail_errno = sys_errno;
  g_faults->fail_at = n;
}

int CallsSeen() { return g_faults->seen; }

void ShareFaultsWithChildren() {
  void* memory =
      mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  PULGA_CHECK(memory != MAP_FAILED);
  g_faults = new (memory) Faults;
}

bool Faulted() {
  const int at = g_faults->fail_at.load(std::memory_order_relaxed);
  if (at == 0) return false;
  if (g_faults->seen.fetch_add(1, std::memory_order_relaxed) + 1 != at) return false;
  errno = g_faults->fail_errno.load(std::memory_order_relaxed);
  return true;
}

// Bounded to a root or a directory, the kernel gives up with EAGAIN on "..", when anything on the
// machine is renamed or mounted meanwhile.
int OpenAt2(int dir_fd, const char* path, const open_how& how) {
  constexpr int kTries = 1000;
  long fd = -1;
  for (int i = 0; i < kTries; ++i) {
    fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
    if (fd >= 0 || errno != EAGAIN) break;
  }
  return static_cast<int>(fd);
}

int OpenBeneath(int dir_fd, const char* path, int flags, mode_t mode) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const int fd = OpenAt2(dir_fd, path, how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  return WalkBeneath(dir_fd, path, flags, mode);
}

int PidfdOpen(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

int PidfdSendSignal(int pidfd, int signo) {
  return static_cast<int>(syscall(SYS_pidfd_send_signal, pidfd, signo, nullptr, 0));
}

long Clone3(const clone_args& args) { return syscall(SYS_clone3, &args, sizeof args); }

int CloseRange(unsigned first, unsigned last, unsigned flags) {
  return static_cast<int>(syscall(SYS_close_range, first, last, flags));
}

int PivotRoot(const char* new_root, const char* put_old) {
  return static_cast<int>(syscall(SYS_pivot_root, new_root, put_old));
}

int Seccomp(unsigned operation, unsigned flags, void* args) {
  return static_cast<int>(syscall(SYS_seccomp, operation, flags, args));
}

int MemfdCreate(const char* name, unsigned flags) {
  return static_cast<int>(syscall(SYS_memfd_create, name, flags));
}

}  // namespace pulga::sys
