#include "images/fetch/fetch_confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>
#include <vector>

#include "base/file_io.h"
#include "base/root_switch.h"
#include "base/seccomp.h"
#include "base/sys.h"

namespace pulga {

// From images/fetch/fetcher_syscalls.txt, made by cmake/seccomp.cmake.
std::span<const sock_filter> FetcherSeccomp();

namespace {

constexpr size_t kMaxViewFile = 256 * 1024;
constexpr size_t kMaxCaBytes = 2 << 20;
// What resolving a name reads. Absent ones stay absent.
constexpr const char* kViewFiles[] = {"/etc/resolv.conf", "/etc/hosts",    "/etc/nsswitch.conf",
                                      "/etc/host.conf",   "/etc/gai.conf", "/etc/services"};
// Where distributions keep the authorities in one file.
constexpr const char* kCaFiles[] = {"/etc/ssl/certs/ca-certificates.crt",
                                    "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
                                    "/etc/ssl/cert.pem"};
// Any directory will do to mount over, and this one every host of ours has.
constexpr const char* kMountPoint = "/proc";

std::string ReadCertificates(const std::string& extra) {
  for (const char* path : kCaFiles) {
    const auto bundle = ReadFile(path, kMaxCaBytes);
    if (bundle.ok()) return *bundle + "\n" + extra;
  }
  return extra;
}

// Copies, not binds: they are small, and nothing of the host's mounts has to be reasoned about.
Status FillView(const std::string& extra_ca) {
  const std::string root = kMountPoint;
  const std::string certificates = ReadCertificates(extra_ca);
  std::vector<std::pair<std::string, std::string>> files;
  for (const char* path : kViewFiles) {
    auto content = ReadFile(path, kMaxViewFile);
    if (content.ok()) files.emplace_back(path, std::move(*content));
  }
  if (mount("fetch", kMountPoint, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
            "size=4m,nr_inodes=64,mode=0755") != 0) {
    return LastError("mount the fetcher's root");
  }
  PULGA_RETURN_IF_ERROR(MakeDirs(root + "/etc/ssl/certs"));
  for (const auto& [path, content] : files) {
    PULGA_RETURN_IF_ERROR(WriteFile(root + path, content));
  }
  return WriteFile(root + kFetchCaFile, certificates);
}

Status EnterView(int mountinfo_fd) {
  if (chdir(kMountPoint) != 0) return LastError("enter the fetcher's root");
  const auto left = SwitchRoot(mountinfo_fd);
  if (!left.ok()) return Prefix("leave the host's root", left.error());
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
            nullptr) != 0) {
    return LastError("make the fetcher's root read-only");
  }
  return OkStatus();
}

Status Limit(uint64_t max_file_bytes) {
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  const std::pair<__rlimit_resource, uint64_t> wanted[] = {
      {RLIMIT_FSIZE, max_file_bytes}, {RLIMIT_CORE, 0}, {RLIMIT_NOFILE, 128}};
  for (const auto& [resource, value] : wanted) {
    rlimit limit = {};
    if (getrlimit(resource, &limit) != 0) return LastError("getrlimit");
    limit.rlim_max = std::min<rlim_t>(limit.rlim_max, value);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) != 0) return LastError("setrlimit");
  }
  return OkStatus();
}

Status DropEverything() {
  for (int cap = 0; cap <= 63; ++cap) {
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0 && errno != EINVAL) {
      return LastError("drop the bounding set");
    }
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capset, &header, data) != 0) return LastError("drop capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return LastError("set no_new_privs");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return LastError("clear dumpable");
  const int error = LoadSeccomp(FetcherSeccomp());
  if (error != 0) return ErrnoError("load the system call list", error);
  return OkStatus();
}

}  // namespace

Status LockInFetcher(const FetchView& view) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return LastError("make the mounts private");
  }
  // The view lies over /proc.
  PULGA_ASSIGN_OR_RETURN(const UniqueFd mounts, OpenFile("/proc/self/mountinfo", O_RDONLY));
  PULGA_RETURN_IF_ERROR(FillView(view.extra_ca));
  PULGA_RETURN_IF_ERROR(Limit(view.max_file_bytes));
  PULGA_RETURN_IF_ERROR(EnterView(mounts.get()));
  return DropEverything();
}

}  // namespace pulga
