#include "base/sys.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>
#include <string>
#include <vector>

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

constexpr int kMostLinks = 40;  // as the kernel has it

// Takes the next component off `todo`; "" at its end.
std::string TakeName(std::string& todo) {
  const size_t begin = std::min(todo.find_first_not_of('/'), todo.size());
  const size_t end = std::min(todo.find('/', begin), todo.size());
  const std::string name = todo.substr(begin, end - begin);
  todo.erase(0, end);
  return name;
}

// The text of a link is followed, never the link itself: so a magic one leads nowhere outside.
int WalkInRoot(int root_fd, std::string todo, int flags) {
  std::vector<UniqueFd> below;  // directories under the root, the current one last
  for (int links = 0;;) {
    const int here = below.empty() ? root_fd : below.back().get();
    const std::string name = TakeName(todo);
    if (name.empty()) return openat(here, ".", flags & ~O_NOFOLLOW);
    if (name == ".") continue;
    if (name == "..") {
      if (!below.empty()) below.pop_back();
      continue;
    }
    UniqueFd next(openat(here, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st = {};
    if (!next.valid() || fstat(next.get(), &st) != 0) return -1;
    if (S_ISLNK(st.st_mode) && !(todo.empty() && (flags & O_NOFOLLOW) != 0)) {
      char target[PATH_MAX];
      const ssize_t n = readlinkat(next.get(), "", target, sizeof target);
      if (n < 0) return -1;
      if (++links > kMostLinks) return errno = ELOOP, -1;
      if (n > 0 && target[0] == '/') below.clear();
      todo.insert(0, target, static_cast<size_t>(n));
      continue;
    }
    if (todo.empty()) return openat(here, name.c_str(), flags | O_NOFOLLOW);
    if (!S_ISDIR(st.st_mode)) return errno = ENOTDIR, -1;
    below.push_back(std::move(next));
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

int OpenInRoot(int root_fd, const char* path, int flags) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const int fd = OpenAt2(root_fd, path, how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  if (path[0] == '\0') return errno = ENOENT, -1;
  return WalkInRoot(root_fd, path, flags | O_CLOEXEC);
}

int PidfdOpen(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

int PidfdSendSignal(int pidfd, int signo) {
  return static_cast<int>(syscall(SYS_pidfd_send_signal, pidfd, signo, nullptr, 0));
}

ssize_t ProcessMadvise(int pidfd, const iovec* ranges, size_t count, int advice) {
  return syscall(SYS_process_madvise, pidfd, ranges, count, advice, 0U);
}

long Clone3(const clone_args& args) { return syscall(SYS_clone3, &args, sizeof args); }

int CloseRange(unsigned first, unsigned last, unsigned flags) {
  return static_cast<int>(syscall(SYS_close_range, first, last, flags));
}

int PivotRoot(const char* new_root, const char* put_old) {
  return static_cast<int>(syscall(SYS_pivot_root, new_root, put_old));
}

int MarkedMount(const char* source, const char* target, const char* type, unsigned long flags,
                const void* data) {
  return static_cast<int>(syscall(SYS_mount, source, target, type, flags, data,
                                  static_cast<unsigned long>(kSetupMark)));
}

int MarkedUnshare(int flags) {
  return static_cast<int>(
      syscall(SYS_unshare, flags, 0L, 0L, 0L, 0L, static_cast<unsigned long>(kSetupMark)));
}

int MarkedSetNs(int fd, int type) {
  return static_cast<int>(
      syscall(SYS_setns, fd, type, 0L, 0L, 0L, static_cast<unsigned long>(kSetupMark)));
}

int Seccomp(unsigned operation, unsigned flags, void* args) {
  return static_cast<int>(syscall(SYS_seccomp, operation, flags, args));
}

int MemfdCreate(const char* name, unsigned flags) {
  return static_cast<int>(syscall(SYS_memfd_create, name, flags));
}

int SetCapabilities(uint64_t permitted, uint64_t inheritable) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; ++i) {
    const auto half = static_cast<uint32_t>(permitted >> (32 * i));
    sets[i] = {half, half, static_cast<uint32_t>(inheritable >> (32 * i))};
  }
  return static_cast<int>(syscall(SYS_capset, &header, sets));
}

int GetPermittedCapabilities(uint64_t* permitted) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, sets) != 0) return -1;
  *permitted = uint64_t{sets[1].permitted} << 32 | sets[0].permitted;
  return 0;
}

int CloneMount(int dir_fd) {
  constexpr unsigned kFlags = AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
  return static_cast<int>(syscall(SYS_open_tree, dir_fd, "", kFlags));
}

int AttachMount(int mount_fd, const char* target) {
  return static_cast<int>(
      syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH));
}

int SetMountAttributes(int mount_fd, uint64_t attributes, int user_namespace_fd) {
  mount_attr attr = {};
  attr.attr_set = attributes;
  attr.userns_fd = static_cast<uint64_t>(user_namespace_fd);
  return static_cast<int>(
      syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH, &attr, sizeof attr));
}

int QuotactlFd(int fd, unsigned command, uint32_t id, void* argument) {
  return static_cast<int>(syscall(SYS_quotactl_fd, fd, command, id, argument));
}

}  // namespace pulga::sys
