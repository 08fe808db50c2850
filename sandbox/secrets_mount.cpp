#include "sandbox/secrets_mount.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "base/file_io.h"
#include "base/sys.h"

namespace pulga {
namespace {

constexpr const char* kMomentary = "/dev/shm";
constexpr unsigned long kInert = MS_NOSUID | MS_NODEV | MS_NOEXEC;

int ReadWhole(int fd, void* out, size_t size, off_t at) {
  ssize_t n;
  do {
    n = PULGA_SYS(pread, fd, out, size, at);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return errno;
  return static_cast<size_t>(n) == size ? 0 : EBADMSG;
}

int CopyTo(int file, int bundle_fd, size_t size, off_t at) {
  char buffer[4096];
  for (size_t done = 0; done < size;) {
    const size_t part = std::min(sizeof buffer, size - done);
    int failed = ReadWhole(bundle_fd, buffer, part, at + static_cast<off_t>(done));
    if (failed != 0) return failed;
    const ssize_t n = PULGA_SYS(write, file, buffer, part);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : ENOSPC;
    done += static_cast<size_t>(n);
  }
  return 0;
}

int WriteOne(int dir, const char* name, int bundle_fd, size_t size, off_t at) {
  const UniqueFd file(
      PULGA_SYS(openat, dir, name, O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0444));
  return file.valid() ? CopyTo(file.get(), bundle_fd, size, at) : errno;
}

Result<UniqueFd> MakeDirectory(int root, const char* name) {
  if (PULGA_SYS(mkdirat, root, name, 0755) != 0) return LastError("mount-secrets: mkdir");
  return OpenFileAt(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

}  // namespace

Result<UniqueFd> MakeSecretBundle(const std::vector<SecretFile>& secrets) {
  UniqueFd fd(sys::Faulted() ? -1 : sys::MemfdCreate("secrets", MFD_CLOEXEC));
  if (!fd.valid()) return LastError("secrets: memfd");
  for (const SecretFile& secret : secrets) {
    const auto size = static_cast<uint32_t>(secret.value.size());
    PULGA_RETURN_IF_ERROR(
        WriteAll(fd.get(), std::string_view(reinterpret_cast<const char*>(&size), sizeof size)));
    PULGA_RETURN_IF_ERROR(WriteAll(fd.get(), secret.value));
  }
  return fd;
}

// The mount that may be written to is let go of at once, so that no instance inherits it: only our
// descriptors lead there.
Status SecretsMount::Mount(const std::vector<SecretFile>& secrets) {
  for (const SecretFile& secret : secrets) names_.push_back(secret.name);
  const std::string options = "mode=755,size=" + std::to_string(SecretsMountBytes(names_.size())) +
                              ",nr_inodes=" + std::to_string(2 * names_.size() + 8);
  if (PULGA_SYS(mount, "tmpfs", kMomentary, "tmpfs", kInert, options.c_str()) != 0) {
    return LastError("mount-secrets");
  }
  PULGA_ASSIGN_OR_RETURN(const UniqueFd root, OpenFile(kMomentary, O_RDONLY | O_DIRECTORY));
  PULGA_ASSIGN_OR_RETURN(ahead_, MakeDirectory(root.get(), "ahead"));
  PULGA_ASSIGN_OR_RETURN(shown_, MakeDirectory(root.get(), "shown"));
  const std::string source = std::string(kMomentary) + "/shown";
  if (PULGA_SYS(mount, source.c_str(), kSecretsDirectory, nullptr, MS_BIND, nullptr) != 0 ||
      PULGA_SYS(mount, nullptr, kSecretsDirectory, nullptr,
                MS_REMOUNT | MS_BIND | MS_RDONLY | kInert, nullptr) != 0 ||
      PULGA_SYS(umount2, kMomentary, MNT_DETACH) != 0) {
    return LastError("mount-secrets: bind");
  }
  return OkStatus();
}

int SecretsMount::WriteAhead(int bundle_fd) const {
  off_t at = 0;
  for (const std::string& name : names_) {
    uint32_t size = 0;
    int failed = ReadWhole(bundle_fd, &size, sizeof size, at);
    if (failed == 0 && size > kMaxSecretBytes) failed = EBADMSG;
    at += sizeof size;
    if (failed == 0) failed = WriteOne(ahead_.get(), name.c_str(), bundle_fd, size, at);
    if (failed != 0) return failed;
    at += size;
  }
  char more;
  return PULGA_SYS(pread, bundle_fd, &more, 1, at) == 0 ? 0 : EBADMSG;
}

int SecretsMount::Replace(int bundle_fd) const {
  int failed = mounted() ? WriteAhead(bundle_fd) : EBADMSG;
  for (const std::string& name : names_) {
    if (failed == 0 &&
        PULGA_SYS(renameat, ahead_.get(), name.c_str(), shown_.get(), name.c_str()) != 0) {
      failed = errno;
    }
    if (failed != 0) unlinkat(ahead_.get(), name.c_str(), 0);
  }
  return failed;
}

}  // namespace pulga
