#include "base/own_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"

namespace pulga {

Result<UniqueFd> OpenOwnFile(const std::string& path, mode_t mode) {
  const Error not_ours{Code::kPermission, 0,
                       path + " belongs to another user than the daemon: chown " +
                           std::to_string(geteuid()) + " " + path};
  auto file = OpenFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!file.ok() && file.error().sys_errno == EACCES) return not_ours;
  if (!file.ok()) return file.error();
  struct stat st = {};
  if (fstat(file->get(), &st) != 0) return LastError("stat " + path);
  if (!S_ISREG(st.st_mode)) return Error{Code::kInvalidArgument, 0, path + " is no file"};
  if ((st.st_mode & 07777) == mode) return file;
  if (st.st_uid != geteuid()) return not_ours;
  if (fchmod(file->get(), mode) != 0) return LastError("chmod " + path);
  return file;
}

}  // namespace pulga
