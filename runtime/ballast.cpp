#include "runtime/ballast.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/log.h"

namespace pulga {
namespace {
constexpr off_t kBytes = 1 << 20;  // a large deletion's pages, in the log and in the database
}  // namespace

void Ballast::Keep() {
  if (kept_) return;
  const auto file = OpenFile(path_, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600);
  if (!file.ok()) return;
  // Not fallocate(): where a filesystem has none, the C library writes instead.
  kept_ = posix_fallocate(file->get(), 0, kBytes) == 0;
  if (!kept_) (void)unlink(path_.c_str());
}

bool Ballast::Drop() {
  kept_ = false;
  if (unlink(path_.c_str()) != 0) return false;
  LogWarning("the disk is full: giving up " + path_ + " to go on");
  return true;
}

}  // namespace pulga
