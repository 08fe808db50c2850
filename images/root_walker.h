// Finds names below a root directory the way a process chrooted there would: symbolic links of any
// layer are followed, absolute ones from the root, ".." never above it (Debian's /bin -> usr/bin
// must work). Nobody else may change the tree meanwhile: the walk goes component by component in
// user space, the same on every kernel, and the directory found is opened with RESOLVE_NO_SYMLINKS.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "images/dir_times.h"
#include "images/disk_reserve.h"

namespace pulga {

class RootWalker {
 public:
  enum class Missing { kFail, kCreate };  // kCreate: mkdir 0755, owner 0:0

  // `reserve`, for the directories it creates, outlives this; without, none is kept.
  explicit RootWalker(int root_fd, DiskReserve* reserve = nullptr)
      : root_fd_(root_fd), reserve_(reserve) {}

  // The directory `path` leads to, free of symbolic links: "" is the root.
  // kNotFound, also below what is no directory; kInvalidArgument for link loops, and with kCreate
  // for parents that are no directories.
  Result<std::string> Resolve(std::string_view path, Missing missing);

  struct Parent {
    int fd = -1;           // valid until the next call or Forget()
    std::string_view dir;  // resolved
  };
  // The directory `path` leads to, opened; the last answer is remembered. What is done in it does
  // not change its time: it has the old one again when another directory is asked for.
  Result<Parent> OpenDir(std::string_view path, Missing missing);
  // After a directory or a symbolic link has been removed or replaced.
  void Forget();
  // The same, while the last answer is still in use: the next question is looked up anew.
  void Doubt() { known_ = false; }

  int root_fd() const { return root_fd_; }

 private:
  int root_fd_;
  DiskReserve* reserve_;
  bool known_ = false;
  std::string asked_;
  std::string resolved_;
  UniqueFd dir_;
  std::optional<KeepDirTime> dir_time_;  // goes before dir_
};

}  // namespace pulga
