#include "images/tree_remove.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "base/text.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

constexpr size_t kMaxOpenLevels = 32;
constexpr int kOpenDir = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

struct DirCloser {
  void operator()(DIR* dir) const { closedir(dir); }
};
using Dir = std::unique_ptr<DIR, DirCloser>;

// One directory being emptied. Far levels are closed and reopened through "..": the tree is ours.
struct Level {
  std::string name;
  Dir dir;
};

Result<Dir> OpenDir(int parent_fd, const char* name) {
  UniqueFd fd(openat(parent_fd, name, kOpenDir));
  if (!fd.valid() && errno == EACCES) {
    fchmodat(parent_fd, name, 0700, 0);
    fd.Reset(openat(parent_fd, name, kOpenDir));
  }
  if (!fd.valid()) return LastError("open " + Printable(name));
  Dir dir(fdopendir(fd.get()));
  if (dir == nullptr) return LastError("read " + Printable(name));
  (void)fd.Release();
  return dir;
}

Result<dev_t> DeviceOf(int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return LastError("stat a directory");
  return st.st_dev;
}

// Unlinks what it can; the name of the first subdirectory that is not empty, or "" when all is
// gone.
Result<std::string> RemoveEntries(DIR* dir) {
  const int fd = dirfd(dir);
  while (true) {
    errno = 0;
    const dirent* entry = readdir(dir);
    if (entry == nullptr) {
      if (errno != 0) return LastError("read a directory");
      return std::string();
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (unlinkat(fd, name.c_str(), 0) == 0 || errno == ENOENT) continue;
    if (errno != EISDIR && errno != EPERM) return LastError("unlink " + Printable(name));
    if (unlinkat(fd, name.c_str(), AT_REMOVEDIR) == 0) continue;
    if (errno != ENOTEMPTY && errno != EEXIST) return LastError("rmdir " + Printable(name));
    return name;
  }
}

// Empties the directory at the bottom of `levels`, going down as needed.
Status EmptyTree(std::vector<Level>& levels, dev_t device) {
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const std::string sub, RemoveEntries(levels.back().dir.get()));
    if (!sub.empty()) {
      PULGA_ASSIGN_OR_RETURN(Dir dir, OpenDir(dirfd(levels.back().dir.get()), sub.c_str()));
      PULGA_ASSIGN_OR_RETURN(const dev_t its_device, DeviceOf(dirfd(dir.get())));
      if (its_device != device) return Error{Code::kPermission, 0, Printable(sub) + " is a mount"};
      levels.push_back({sub, std::move(dir)});
      if (levels.size() > kMaxOpenLevels) levels[levels.size() - 1 - kMaxOpenLevels].dir.reset();
      continue;
    }
    if (levels.size() == 1) return OkStatus();
    const Level done = std::move(levels.back());
    levels.pop_back();
    if (levels.back().dir == nullptr) {
      PULGA_ASSIGN_OR_RETURN(levels.back().dir, OpenDir(dirfd(done.dir.get()), ".."));
    }
    const int fd = dirfd(levels.back().dir.get());
    if (unlinkat(fd, done.name.c_str(), AT_REMOVEDIR) != 0) {
      return LastError("rmdir " + Printable(done.name));
    }
  }
}

}  // namespace

Status RemoveAll(int parent_fd, const std::string& name) {
  if (unlinkat(parent_fd, name.c_str(), 0) == 0 || errno == ENOENT) return OkStatus();
  if (errno != EISDIR && errno != EPERM) return LastError("unlink " + Printable(name));
  if (unlinkat(parent_fd, name.c_str(), AT_REMOVEDIR) == 0) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(Dir dir, OpenDir(parent_fd, name.c_str()));
  PULGA_ASSIGN_OR_RETURN(const dev_t device, DeviceOf(dirfd(dir.get())));
  std::vector<Level> levels;
  levels.push_back({name, std::move(dir)});
  Status emptied = EmptyTree(levels, device);
  if (!emptied.ok()) return Prefix("remove " + Printable(name, 200), emptied.error());
  levels.clear();
  if (unlinkat(parent_fd, name.c_str(), AT_REMOVEDIR) != 0) {
    return LastError("remove " + Printable(name, 200));
  }
  return OkStatus();
}

}  // namespace pulga
