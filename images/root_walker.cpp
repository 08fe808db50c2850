#include "images/root_walker.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <deque>

#include "base/sys.h"
#include "base/text.h"
#include "images/layer_path.h"

namespace pulga {
namespace {

constexpr int kMaxLinks = 40;         // as the kernel has it
constexpr uint64_t kDirBytes = 8192;  // what a directory takes on disk, roughly

Error Bad(std::string_view path, std::string_view why) {
  return {Code::kInvalidArgument, 0, Printable(path, 200) + ": " + std::string(why)};
}

void PushFront(std::deque<std::string>& pending, std::string_view path) {
  const auto parts = Split(path, '/');
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) pending.emplace_front(*part);
}

Result<std::string> ReadLink(int root_fd, const std::string& path) {
  char target[kMaxPathBytes + 1];
  const ssize_t n = readlinkat(root_fd, path.c_str(), target, sizeof target);
  if (n < 0) return LastError("read link " + Printable(path, 200));
  return std::string(target, static_cast<size_t>(n));
}

Status MakeDir(int root_fd, const std::string& parent, const std::string& path) {
  const UniqueFd dir(
      sys::OpenBeneath(root_fd, parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY));
  const KeepDirTime keep(dir.get());
  if (mkdirat(root_fd, path.c_str(), 0755) != 0) return LastError("mkdir " + Printable(path, 200));
  // Below a setgid directory it would have that one's group.
  if (fchownat(root_fd, path.c_str(), 0, 0, AT_SYMLINK_NOFOLLOW) != 0) {
    return LastError("chown " + Printable(path, 200));
  }
  if (fchmodat(root_fd, path.c_str(), 0755, 0) != 0) {
    return LastError("chmod " + Printable(path, 200));
  }
  return OkStatus();
}

}  // namespace

// One step of the walk: `done` is free of links, so the kernel's own lookup of it is safe.
Result<std::string> RootWalker::Resolve(std::string_view path, Missing missing) {
  std::string done;
  std::deque<std::string> pending;
  PushFront(pending, path);
  int links = 0;
  while (!pending.empty()) {
    const std::string part = std::move(pending.front());
    pending.pop_front();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      done.resize(SplitPath(done).parent.size());
      continue;
    }
    std::string next = done.empty() ? part : done + "/" + part;
    if (next.size() > kMaxPathBytes || part.size() > kMaxNameBytes) return Bad(path, "too long");
    struct stat st = {};
    if (fstatat(root_fd_, next.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT || missing == Missing::kFail) return LastError(Printable(next, 200));
      // One name of a layer may lead through links to many thousands that are missing.
      if (reserve_ != nullptr) PULGA_RETURN_IF_ERROR(reserve_->Spend(kDirBytes));
      PULGA_RETURN_IF_ERROR(MakeDir(root_fd_, done, next));
      done = std::move(next);
    } else if (S_ISLNK(st.st_mode)) {
      if (++links > kMaxLinks) return Bad(path, "too many symbolic links");
      PULGA_ASSIGN_OR_RETURN(const std::string target, ReadLink(root_fd_, next));
      if (target.starts_with('/')) done.clear();
      PushFront(pending, target);
    } else if (S_ISDIR(st.st_mode)) {
      done = std::move(next);
    } else {
      Error error = Bad(next, "not a directory");
      if (missing == Missing::kFail) error.code = Code::kNotFound;
      return error;
    }
  }
  return done;
}

Result<RootWalker::Parent> RootWalker::OpenDir(std::string_view path, Missing missing) {
  if (known_ && asked_ == path) return Parent{dir_.get(), resolved_};
  PULGA_ASSIGN_OR_RETURN(std::string resolved, Resolve(path, missing));
  const char* name = resolved.empty() ? "." : resolved.c_str();
  UniqueFd fd(sys::OpenBeneath(root_fd_, name, O_RDONLY | O_DIRECTORY));
  if (!fd.valid()) return LastError("open " + Printable(resolved, 200));
  Forget();
  dir_ = std::move(fd);
  dir_time_.emplace(dir_.get());
  resolved_ = std::move(resolved);
  asked_ = path;
  known_ = true;
  return Parent{dir_.get(), resolved_};
}

void RootWalker::Forget() {
  known_ = false;
  dir_time_.reset();
  dir_.Reset();
}

}  // namespace pulga
