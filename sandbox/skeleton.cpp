#include "sandbox/skeleton.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <vector>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

UniqueFd OpenInRoot(int root, const std::string& path, int flags) {
  return UniqueFd(PULGA_SYS(sys::OpenInRoot, root, path.c_str(), flags));
}

Result<std::string> FdPath(int fd) {
  char path[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t n = PULGA_SYS(readlink, link.c_str(), path, sizeof path);
  if (n < 0) return LastError("readlink " + link);
  return std::string(path, static_cast<size_t>(n));
}

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string JoinPath(const std::string& dir, const std::string& name) {
  return dir == "/" ? dir + name : dir + "/" + name;
}

// `path` (normalized) with the image's symlinks followed inside the root; the end may be missing.
Result<std::string> ResolveInImage(int root, const std::string& path) {
  if (path == "/") return path;
  const UniqueFd fd = OpenInRoot(root, path, O_PATH);
  if (fd.valid()) {
    PULGA_ASSIGN_OR_RETURN(const std::string prefix, FdPath(root));
    PULGA_ASSIGN_OR_RETURN(const std::string full, FdPath(fd.get()));
    if (full == prefix) return std::string("/");
    if (!IsBelow(full, prefix)) return Error{Code::kIo, 0, path + ": left the root"};
    return full.substr(prefix == "/" ? 0 : prefix.size());
  }
  if (errno != ENOENT) return LastError(path);
  if (OpenInRoot(root, path, O_PATH | O_NOFOLLOW).valid()) {
    return Error{Code::kInvalidArgument, ENOENT, path + ": a symbolic link that leads nowhere"};
  }
  PULGA_ASSIGN_OR_RETURN(const std::string parent, ResolveInImage(root, ParentOf(path)));
  return JoinPath(parent, path.substr(path.rfind('/') + 1));
}

// Makes the resolved directory `path` in the skeleton, parents first. What the image has keeps the
// image's owner, mode and times; the rest belongs to id 0.
Status MakeDirectory(const SkeletonOptions& options, const std::string& path) {
  if (path == "/") return OkStatus();
  PULGA_RETURN_IF_ERROR(MakeDirectory(options, ParentOf(path)));
  const char* below = path.c_str() + 1;
  struct stat st = {};
  const UniqueFd image = OpenInRoot(options.image_root, path, O_PATH | O_NOFOLLOW);
  const bool exists = image.valid() && fstat(image.get(), &st) == 0;
  if (exists && !S_ISDIR(st.st_mode)) {
    return Error{Code::kInvalidArgument, ENOTDIR, path + ": not a directory in the image"};
  }
  if (PULGA_SYS(mkdirat, options.skeleton, below, 0755) != 0) {
    if (errno == EEXIST) return OkStatus();
    return LastError("mkdir " + path);
  }
  const uid_t uid = exists ? st.st_uid : options.owner;
  const gid_t gid = exists ? st.st_gid : options.owner;
  if (PULGA_SYS(fchownat, options.skeleton, below, uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return LastError("chown " + path);
  }
  if (!exists) return OkStatus();
  if (PULGA_SYS(fchmodat, options.skeleton, below, st.st_mode & 07777, 0) != 0) {
    return LastError("chmod " + path);
  }
  const timespec times[2] = {st.st_atim, st.st_mtim};
  (void)utimensat(options.skeleton, below, times, AT_SYMLINK_NOFOLLOW);
  return OkStatus();
}

struct MountPoint {
  const char* name;
  mode_t mode;
};

Status MakeMountPoints(const SkeletonOptions& options) {
  for (const auto& [name, mode] :
       {MountPoint{"dev", 0755}, MountPoint{"proc", 0555}, MountPoint{"sys", 0555},
        MountPoint{"tmp", 01777}, MountPoint{"run", 0755}}) {
    if (PULGA_SYS(mkdirat, options.skeleton, name, 0755) != 0 ||
        PULGA_SYS(fchownat, options.skeleton, name, options.owner, options.owner, 0) != 0 ||
        PULGA_SYS(fchmodat, options.skeleton, name, mode, 0) != 0) {
      return LastError(std::string("make /") + name);
    }
  }
  return OkStatus();
}

Status WriteInSkeleton(const SkeletonOptions& options, const std::string& path,
                       const std::string& text) {
  PULGA_ASSIGN_OR_RETURN(
      const UniqueFd fd,
      OpenFileAt(options.skeleton, path.substr(1), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644));
  PULGA_RETURN_IF_ERROR(WriteAll(fd.get(), text));
  if (PULGA_SYS(fchown, fd.get(), options.owner, options.owner) != 0)
    return LastError("chown " + path);
  return OkStatus();
}

Status MakeEtc(const SkeletonOptions& options) {
  auto etc = ResolveInImage(options.image_root, "/etc");
  if (!etc.ok()) return etc.error();
  PULGA_RETURN_IF_ERROR(MakeDirectory(options, *etc));
  const std::string host = options.hostname.empty() ? "localhost" : options.hostname;
  std::string hosts =
      "127.0.0.1\tlocalhost" + (host == "localhost" ? "" : " " + host) + "\n::1\tlocalhost\n";
  std::string resolvers = options.resolvers;
  if (!options.router.empty()) {
    hosts += options.router + "\tgateway gateway.openfaas pulga\n";
    resolvers = "nameserver " + options.router + "\noptions timeout:6 attempts:1\n";
  }
  PULGA_RETURN_IF_ERROR(WriteInSkeleton(options, JoinPath(*etc, "hosts"), hosts));
  PULGA_RETURN_IF_ERROR(WriteInSkeleton(options, JoinPath(*etc, "hostname"), host + "\n"));
  return WriteInSkeleton(options, JoinPath(*etc, "resolv.conf"), resolvers);
}

}  // namespace

std::string NormalizePath(std::string_view path) {
  std::vector<std::string_view> kept;
  for (std::string_view part : Split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..")
      kept.push_back(part);
    else if (!kept.empty())
      kept.pop_back();
  }
  std::string out;
  for (std::string_view part : kept) out.append("/").append(part);
  return out.empty() ? "/" : out;
}

bool IsBelow(std::string_view path, std::string_view dir) {
  if (dir == "/") return true;
  return path == dir ||
         (path.size() > dir.size() && path.substr(0, dir.size()) == dir && path[dir.size()] == '/');
}

Result<std::string> FillSkeleton(const SkeletonOptions& options) {
  struct stat st = {};
  if (fstat(options.image_root, &st) != 0 ||
      PULGA_SYS(fchown, options.skeleton, st.st_uid, st.st_gid) != 0 ||
      PULGA_SYS(fchmod, options.skeleton, st.st_mode & 07777) != 0) {
    return LastError("skeleton: root");
  }
  Status s = MakeMountPoints(options);
  if (!s.ok()) return Prefix("skeleton", s.error());
  s = MakeEtc(options);
  if (!s.ok()) return Prefix("skeleton", s.error());
  auto dir = ResolveInImage(options.image_root, NormalizePath(options.working_dir));
  if (!dir.ok()) return Prefix("workdir", dir.error());
  for (const char* refused : {"/proc", "/sys", "/dev"}) {
    if (IsBelow(*dir, refused)) {
      return Error{Code::kInvalidArgument, 0,
                   "workdir: must not be inside " + std::string(refused)};
    }
  }
  if (IsBelow(*dir, "/tmp") || IsBelow(*dir, "/run")) return dir;  // made in each instance's own
  s = MakeDirectory(options, *dir);
  if (!s.ok()) return Prefix("workdir", s.error());
  return dir;
}

Result<std::string> AddMountPoint(const SkeletonOptions& options, const std::string& path) {
  PULGA_ASSIGN_OR_RETURN(std::string inside,
                         ResolveInImage(options.image_root, NormalizePath(path)));
  for (const char* own : {"/proc", "/sys", "/dev", "/tmp", "/run"}) {
    if (inside != "/" && !IsBelow(inside, own)) continue;
    return Error{Code::kInvalidArgument, 0, inside + " is the sandbox's own"};
  }
  PULGA_RETURN_IF_ERROR(MakeDirectory(options, inside));
  return inside;
}

}  // namespace pulga
