// The directories a layer names and their times, kept in a file: times are set when everything is
// written, and a million directories must not cost memory.
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

class DirTimes {
 public:
  // `file` is empty and readable.
  explicit DirTimes(UniqueFd file) : file_(std::move(file)) {}
  // `path` is resolved; a later record of the same path wins.
  Status Add(std::string_view path, const timespec& mtime);
  // Sets the times below `root_fd`; paths that are no directories any more are passed over.
  Status Apply(int root_fd);

 private:
  Status Flush();
  template <typename Each>
  Status ForEach(Each each);

  UniqueFd file_;
  std::string pending_;
};

// While it lives a directory may be changed; then it has the time of before again, which is what a
// layer that names only a child means. No copy-up of a directory that was not changed.
class KeepDirTime {
 public:
  explicit KeepDirTime(int dir_fd);
  ~KeepDirTime();
  KeepDirTime(const KeepDirTime&) = delete;
  KeepDirTime& operator=(const KeepDirTime&) = delete;

 private:
  int dir_fd_;
  timespec before_ = {};
  bool known_ = false;
};

}  // namespace pulga
