#include "sandbox/mount_apply.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr mode_t kDirectoryMode = 0755;

int MakeFile(const char* path, const std::string& text) {
  const int fd = PULGA_SYS(open, path, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0444);
  if (fd < 0) return -1;
  const ssize_t n = text.empty() ? 0 : PULGA_SYS(write, fd, text.data(), text.size());
  const int failed = n < 0 ? errno : (static_cast<size_t>(n) == text.size() ? 0 : ENOSPC);
  close(fd);
  return failed == 0 ? 0 : (errno = failed, -1);
}

int Mount(const MountEntry& entry) {
  const char* target = entry.target.c_str();
  if (PULGA_SYS(sys::MarkedMount, entry.source.c_str(), target, entry.fstype.c_str(), entry.flags,
                entry.data.empty() ? nullptr : entry.data.c_str()) != 0) {
    return -1;
  }
  if (entry.magic == 0) return 0;
  struct statfs fs = {};
  if (PULGA_SYS(statfs, target, &fs) != 0) return -1;
  if (static_cast<long>(fs.f_type) == entry.magic) return 0;
  return errno = ESTALE, -1;  // it went elsewhere, or something lies over it
}

int Bind(const MountEntry& entry) {
  const char* target = entry.target.c_str();
  if (PULGA_SYS(sys::MarkedMount, entry.source.c_str(), target, nullptr, MS_BIND, nullptr) != 0)
    return -1;
  if (entry.flags == 0) return 0;
  const unsigned long flags = MS_REMOUNT | MS_BIND | entry.flags;
  return PULGA_SYS(sys::MarkedMount, nullptr, target, nullptr, flags, nullptr);
}

// Inside a container root may be forbidden to make devices: then the host's is bound, if it is one.
int MakeDevice(const MountEntry& entry) {
  const char* target = entry.target.c_str();
  if (PULGA_SYS(mknod, target, entry.device_type | 0666, entry.device) == 0) {
    return PULGA_SYS(chmod, target, 0666);  // whatever the umask says
  }
  if (errno != EPERM) return -1;
  if (MakeFile(target, "") != 0 || Bind(entry) != 0) return -1;
  struct stat st = {};
  if (stat(target, &st) != 0) return -1;
  if ((st.st_mode & S_IFMT) == entry.device_type && st.st_rdev == entry.device) return 0;
  return errno = ENODEV, -1;
}

int Apply(const MountEntry& entry) {
  const char* target = entry.target.c_str();
  switch (entry.kind) {
    case MountKind::kDirectory:
      return PULGA_SYS(mkdir, target, kDirectoryMode);
    case MountKind::kFile:
      return MakeFile(target, entry.data);
    case MountKind::kSymlink:
      return PULGA_SYS(symlink, entry.source.c_str(), target);
    case MountKind::kMount:
      return Mount(entry);
    case MountKind::kBind:
      return Bind(entry);
    case MountKind::kDevice:
      return MakeDevice(entry);
    case MountKind::kRemount:
      return PULGA_SYS(sys::MarkedMount, nullptr, target, nullptr, entry.flags,
                       entry.data.empty() ? nullptr : entry.data.c_str());
  }
  return errno = EINVAL, -1;
}

}  // namespace

StepResult ApplyMounts(std::span<const MountEntry> entries) {
  for (const MountEntry& entry : entries) {
    if (Apply(entry) != 0) return {entry.step.c_str(), errno};
  }
  return {};
}

}  // namespace pulga
