// A directory that is removed, with everything in it, when its owner goes.
#pragma once

#include <string>

#include "base/result.h"

namespace pulga {

class TempDir {
 public:
  // `prefix` is a path prefix such as "/tmp/pulga-test-"; mode 0700.
  static Result<TempDir> Create(const std::string& prefix);
  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&& other) noexcept;
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace pulga
