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
#include "sandbox/id_ranges.h"

namespace pulga {
namespace {

constexpr size_t kMaxPasswd = 1 << 20;

Status OwnDirectory(int fd, const std::string& name, const DaemonIds& ids) {
  if (PULGA_SYS(fchown, fd, ids.uid, ids.gid) != 0 || PULGA_SYS(fchmod, fd, 0700) != 0) {
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

}  // namespace

// A static program cannot load the host's name services; the file is what a board has.
Result<DaemonIds> FindDaemonIds(const std::string& user) {
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
  PULGA_RETURN_IF_ERROR(OwnDirectory(dir.get(), out.path, ids));
  if (PULGA_SYS(mkdirat, dir.get(), "layers", 0700) != 0 && errno != EEXIST) {
    return LastError("mkdir " + out.path + "/layers");
  }
  PULGA_ASSIGN_OR_RETURN(out.layers,
                         OpenFileAt(dir.get(), "layers", O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  PULGA_RETURN_IF_ERROR(OwnDirectory(out.layers.get(), out.path + "/layers", DaemonIds{0, 0}));
  return out;
}

}  // namespace pulga
