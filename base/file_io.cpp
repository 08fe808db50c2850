#include "base/file_io.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/ids.h"
#include "base/sys.h"

namespace pulga {

Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  return OpenFileAt(AT_FDCWD, path, flags, mode);
}

Result<UniqueFd> OpenFileAt(int dir_fd, const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(PULGA_SYS(openat, dir_fd, path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd.valid()) return LastError("open " + path);
  return fd;
}

Result<UniqueFd> OpenUnnamedFile(const std::string& dir) {
  UniqueFd fd(PULGA_SYS(open, dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) {
    return LastError("create a temporary file in " + dir);
  }
  const std::string path = dir + "/.tmp-" + RandomHex(8);
  PULGA_ASSIGN_OR_RETURN(UniqueFd named, OpenFile(path, O_RDWR | O_CREAT | O_EXCL, 0600));
  unlink(path.c_str());
  return named;
}

Result<std::string> ReadFd(int fd, size_t limit) {
  std::string out;
  char buffer[16384];
  while (true) {
    const ssize_t n = PULGA_SYS(read, fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("read");
    if (n == 0) return out;
    if (out.size() + static_cast<size_t>(n) > limit) {
      return Error{Code::kTooLarge, 0, "more than " + std::to_string(limit) + " bytes"};
    }
    out.append(buffer, static_cast<size_t>(n));
  }
}

Result<std::string> ReadFile(const std::string& path, size_t limit) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
  auto content = ReadFd(fd.get(), limit);
  if (!content.ok()) return Prefix(path, content.error());
  return content;
}

Result<std::string> ReadAt(int fd, off_t offset, size_t size) {
  std::string out(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n =
        PULGA_SYS(pread, fd, out.data() + done, size - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("read");
    if (n == 0) return Error{Code::kIo, 0, "unexpected end of file"};
    done += static_cast<size_t>(n);
  }
  return out;
}

Status WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = PULGA_SYS(write, fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("write");
    data.remove_prefix(static_cast<size_t>(n));
  }
  return OkStatus();
}

Status WriteFile(const std::string& path, std::string_view data, mode_t mode) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, mode));
  Status s = WriteAll(fd.get(), data);
  if (!s.ok()) return Prefix(path, s.error());
  return s;
}

Status WriteFileDurably(const std::string& path, std::string_view data, mode_t mode) {
  const std::string beside = path + ".new";
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(beside, O_WRONLY | O_CREAT | O_TRUNC, mode));
  Status s = WriteAll(fd.get(), data);
  if (!s.ok()) return Prefix(beside, s.error());
  if (PULGA_SYS(fsync, fd.get()) != 0) return LastError("fsync " + beside);
  if (PULGA_SYS(rename, beside.c_str(), path.c_str()) != 0) return LastError("rename " + beside);
  const std::string parent = path.substr(0, path.find_last_of('/') + 1);
  const std::string dir = parent.empty() ? "." : parent;
  PULGA_ASSIGN_OR_RETURN(UniqueFd dir_fd, OpenFile(dir, O_RDONLY | O_DIRECTORY));
  if (PULGA_SYS(fsync, dir_fd.get()) != 0) return LastError("fsync " + dir);
  return OkStatus();
}

Status MakeDirs(const std::string& path, mode_t mode) {
  for (size_t at = 1; at <= path.size(); ++at) {
    if (at != path.size() && path[at] != '/') continue;
    const std::string prefix = path.substr(0, at);
    if (PULGA_SYS(mkdir, prefix.c_str(), mode) != 0 && errno != EEXIST) {
      return LastError("mkdir " + prefix);
    }
  }
  return OkStatus();
}

namespace {

// A stream of its own over a directory, to be closed by closedir.
Result<DIR*> OpenStream(int dir_fd) {
  UniqueFd copy(PULGA_SYS(openat, dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid()) return LastError("open directory");
  DIR* dir = fdopendir(copy.get());
  if (dir == nullptr) return LastError("read directory");
  (void)copy.Release();
  return dir;
}

// Empties one directory of everything but non-empty subdirectories, whose names it returns.
Result<std::vector<std::string>> RemoveLeaves(int dir_fd) {
  PULGA_ASSIGN_OR_RETURN(DIR* const dir, OpenStream(dir_fd));
  std::vector<std::string> subdirs;
  while (dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (PULGA_SYS(unlinkat, dir_fd, name.c_str(), 0) == 0 || errno == ENOENT) continue;
    if (unlinkat(dir_fd, name.c_str(), AT_REMOVEDIR) == 0) continue;
    subdirs.push_back(name);
  }
  closedir(dir);
  return subdirs;
}

dev_t DeviceOf(int fd) {
  struct stat st = {};
  return fstat(fd, &st) == 0 ? st.st_dev : 0;
}

}  // namespace

Result<std::vector<std::string>> ListNames(int dir_fd) {
  PULGA_ASSIGN_OR_RETURN(DIR* const dir, OpenStream(dir_fd));
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) names.emplace_back(entry->d_name);
  closedir(dir);
  return names;
}

Status RemoveTree(int parent_fd, const std::string& name) {
  if (PULGA_SYS(unlinkat, parent_fd, name.c_str(), 0) == 0 || errno == ENOENT) return OkStatus();
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
  PULGA_ASSIGN_OR_RETURN(UniqueFd root, OpenFileAt(parent_fd, name, flags));
  // Deep trees: pull each non-empty subdirectory up to the top under a fresh name, then empty it.
  const dev_t device = DeviceOf(root.get());
  uint64_t serial = 0;
  std::vector<std::string> todo;
  PULGA_ASSIGN_OR_RETURN(todo, RemoveLeaves(root.get()));
  while (!todo.empty()) {
    const std::string dir_name = todo.back();
    todo.pop_back();
    PULGA_ASSIGN_OR_RETURN(UniqueFd dir, OpenFileAt(root.get(), dir_name, flags));
    if (DeviceOf(dir.get()) != device) return Error{Code::kPermission, 0, name + ": is a mount"};
    fchmod(dir.get(), 0700);
    PULGA_ASSIGN_OR_RETURN(std::vector<std::string> subdirs, RemoveLeaves(dir.get()));
    for (const std::string& sub : subdirs) {
      const std::string lifted = ".rm-" + std::to_string(++serial) + "-" + RandomHex(4);
      if (PULGA_SYS(renameat, dir.get(), sub.c_str(), root.get(), lifted.c_str()) != 0) {
        return LastError("remove " + sub);
      }
      todo.push_back(lifted);
    }
    if (PULGA_SYS(unlinkat, root.get(), dir_name.c_str(), AT_REMOVEDIR) != 0) {
      return LastError("remove " + dir_name);
    }
  }
  if (PULGA_SYS(unlinkat, parent_fd, name.c_str(), AT_REMOVEDIR) != 0)
    return LastError("remove " + name);
  return OkStatus();
}

Status SetNonBlocking(int fd) {
  const int flags = PULGA_SYS(fcntl, fd, F_GETFL);
  if (flags < 0 || PULGA_SYS(fcntl, fd, F_SETFL, flags | O_NONBLOCK) != 0)
    return LastError("set O_NONBLOCK");
  return OkStatus();
}

Result<uint64_t> FreeDiskBytes(const std::string& path) {
  struct statvfs disk = {};
  if (statvfs(path.c_str(), &disk) != 0) return LastError("look at the disk");
  return static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
}

}  // namespace pulga
