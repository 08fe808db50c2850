#include "sandbox/keeper_setup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/keeper.h"

namespace pulga {
namespace {

constexpr size_t kMaxPasswd = 1 << 20;

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0700;
};

Status OwnDirectory(int fd, const std::string& name, const Owner& owner) {
  if (PULGA_SYS(fchown, fd, owner.uid, owner.gid) != 0 || PULGA_SYS(fchmod, fd, owner.mode) != 0) {
    return LastError("own " + name);
  }
  return OkStatus();
}

// It is made the daemon's own and closed to everybody else, which must not happen to somebody's
// home by a slip of the command line.
Status CheckAdoptable(int dir, const std::string& name) {
  // By kind as well: /var and /run have a "lock" too.
  for (const auto& [ours, kind] :
       {std::pair{"pulga.db", S_IFREG}, std::pair{"lock", S_IFREG}, std::pair{"layers", S_IFDIR}}) {
    struct stat st = {};
    const int got = fstatat(dir, ours, &st, AT_SYMLINK_NOFOLLOW);
    if (got == 0 && (st.st_mode & S_IFMT) == static_cast<mode_t>(kind)) return OkStatus();
  }
  const UniqueFd listed(PULGA_SYS(openat, dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!listed.valid()) return LastError("read " + name);
  DIR* const stream = fdopendir(dup(listed.get()));
  if (stream == nullptr) return LastError("read " + name);
  std::string found;
  while (const dirent* entry = readdir(stream)) {
    found = entry->d_name;
    if (found != "." && found != ".." && found != "lost+found") break;
    found.clear();
  }
  closedir(stream);
  if (found.empty()) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "data directory " + name + " holds other things (" + Printable(found) +
                   ") and nothing of pulga's: choose a new or empty directory"};
}

// The key in it is for the user, who is another id than the daemon.
Owner OwnerOfData(const DaemonIds& ids) {
  if (ids.on_host || ids.uid == 0) return {ids.uid, ids.gid};
  return {0, ids.gid, 0770};
}

// What lies in it is mounted as file systems, so it is never adopted from anybody: whoever has the
// data directory, the daemon too, could have put one of their own there.
Result<UniqueFd> OpenVolumes(int dir, const std::string& path) {
  const std::string name = path + "/volumes";
  if (PULGA_SYS(mkdirat, dir, "volumes", 0700) != 0 && errno != EEXIST) {
    return LastError("mkdir " + name);
  }
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd,
                         OpenFileAt(dir, "volumes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return LastError("stat " + name);
  if (st.st_uid == 0 && (st.st_mode & 0077) == 0) return fd;
  return Error{Code::kPermission, 0,
               name + " is not root's alone (0700): move it away, and find out who made it"};
}

}  // namespace

// A static program cannot load the host's name services; the file is what a board has.
Result<DaemonIds> FindDaemonIds(const std::string& user, const HostIds& host) {
  if (!host.on_host) return DaemonIds{host.daemon, host.daemon, false};
  if (const auto number = ParseUint(user, UINT32_MAX - 1); number.has_value() && *number != 0) {
    return DaemonIds{static_cast<uid_t>(*number), static_cast<gid_t>(*number)};
  }
  const auto passwd = ReadFile("/etc/passwd", kMaxPasswd);
  const std::string text = passwd.ok() ? *passwd : "";
  for (std::string_view line : Split(text, '\n')) {
    const auto fields = Split(line, ':');
    if (fields.size() < 4 || fields[0] != user) continue;
    const auto uid = ParseUint(fields[2], UINT32_MAX - 1);
    const auto gid = ParseUint(fields[3], UINT32_MAX - 1);
    if (!uid || !gid || *uid == 0 || *gid == 0) {
      return Error{Code::kInvalidArgument, 0, "user " + user + ": the daemon must not be root"};
    }
    return DaemonIds{static_cast<uid_t>(*uid), static_cast<gid_t>(*gid)};
  }
  if (user != kDefaultDaemonUser) {
    return Error{Code::kInvalidArgument, 0,
                 "user " + Printable(user) + ": this host has none of that name"};
  }
  LogInfo("no user " + Printable(user) + " on this host: the daemon runs as id " +
          std::to_string(kDaemonFallbackId));
  return DaemonIds{kDaemonFallbackId, kDaemonFallbackId};
}

Result<DataDirectory> OpenDataDirectory(const std::string& path, const DaemonIds& ids) {
  DataDirectory out;
  PULGA_RETURN_IF_ERROR(MakeDirs(path, 0755));
  char real[PATH_MAX];
  if (realpath(path.c_str(), real) == nullptr) return LastError("data directory " + path);
  out.path = real;
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir, OpenFile(out.path, O_RDONLY | O_DIRECTORY));
  PULGA_RETURN_IF_ERROR(CheckAdoptable(dir.get(), out.path));
  PULGA_ASSIGN_OR_RETURN(
      out.lock, OpenFileAt(dir.get(), "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (flock(out.lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return LastError("lock " + out.path);
    return Error{
        Code::kAlreadyExists, errno,
        "another pulga daemon is using " + out.path + ": stop it, or choose another --data"};
  }
  PULGA_RETURN_IF_ERROR(OwnDirectory(dir.get(), out.path, OwnerOfData(ids)));
  if (PULGA_SYS(mkdirat, dir.get(), "layers", 0700) != 0 && errno != EEXIST) {
    return LastError("mkdir " + out.path + "/layers");
  }
  PULGA_ASSIGN_OR_RETURN(out.layers,
                         OpenFileAt(dir.get(), "layers", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  PULGA_RETURN_IF_ERROR(OwnDirectory(out.layers.get(), out.path + "/layers", Owner{}));
  PULGA_ASSIGN_OR_RETURN(out.volumes, OpenVolumes(dir.get(), out.path));
  return out;
}

}  // namespace pulga
