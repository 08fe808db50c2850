#include "base/temp_dir.h"

#include <fcntl.h>
#include <stdlib.h>

#include "base/file_io.h"

namespace pulga {

Result<TempDir> TempDir::Create(const std::string& prefix) {
  std::string path = prefix + "XXXXXX";
  if (mkdtemp(path.data()) == nullptr) return LastError("mkdtemp " + path);
  return TempDir(path);
}

TempDir::TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, "")) {}

TempDir& TempDir::operator=(TempDir&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TempDir::~TempDir() {
  if (path_.empty() || RemoveTree(AT_FDCWD, path_).ok()) return;
  (void)RemoveTree(AT_FDCWD, path_).ok();  // the descriptor that lacked may be free by now
}

}  // namespace pulga
