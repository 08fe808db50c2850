#include "images/dir_times.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kChunk = 16384;

struct Record {
  int64_t seconds;
  int64_t nanoseconds;
  uint64_t path_size;
};

}  // namespace

KeepDirTime::KeepDirTime(int dir_fd) : dir_fd_(dir_fd) {
  struct stat st = {};
  known_ = fstat(dir_fd, &st) == 0;
  if (known_) before_ = st.st_mtim;
}

KeepDirTime::~KeepDirTime() {
  struct stat st = {};
  if (!known_ || fstat(dir_fd_, &st) != 0) return;
  if (st.st_mtim.tv_sec == before_.tv_sec && st.st_mtim.tv_nsec == before_.tv_nsec) return;
  const timespec times[2] = {{0, UTIME_OMIT}, before_};
  (void)futimens(dir_fd_, times);  // it may be gone meanwhile
}

Status DirTimes::Flush() {
  const Status written = WriteAll(file_.get(), pending_);
  pending_.clear();
  if (!written.ok()) return Prefix("directory times", written.error());
  return OkStatus();
}

Status DirTimes::Add(std::string_view path, const timespec& mtime) {
  const Record record = {mtime.tv_sec, mtime.tv_nsec, path.size()};
  pending_.append(reinterpret_cast<const char*>(&record), sizeof record);
  pending_ += path;
  return pending_.size() < kChunk ? OkStatus() : Flush();
}

template <typename Each>
Status DirTimes::ForEach(Each each) {
  PULGA_RETURN_IF_ERROR(Flush());
  std::string buffer;
  off_t at = 0;
  bool more = true;
  while (more || !buffer.empty()) {
    char chunk[kChunk];
    const ssize_t n = pread(file_.get(), chunk, sizeof chunk, at);
    if (n < 0) return LastError("read directory times");
    more = n > 0;
    at += n;
    buffer.append(chunk, static_cast<size_t>(n));
    size_t used = 0;
    Record record;
    while (buffer.size() - used >= sizeof record) {
      memcpy(&record, buffer.data() + used, sizeof record);
      if (buffer.size() - used - sizeof record < record.path_size) break;
      const std::string path = buffer.substr(used + sizeof record, record.path_size);
      PULGA_RETURN_IF_ERROR(each(path, timespec{record.seconds, record.nanoseconds}));
      used += sizeof record + record.path_size;
    }
    if (used == 0 && !more) break;
    buffer.erase(0, used);
  }
  return OkStatus();
}

Status DirTimes::Apply(int root_fd) {
  return ForEach([&](const std::string& path, const timespec& mtime) -> Status {
    const char* name = path.empty() ? "." : path.c_str();
    struct stat st = {};
    if (fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode)) {
      return OkStatus();
    }
    const timespec times[2] = {mtime, mtime};
    if (utimensat(root_fd, name, times, AT_SYMLINK_NOFOLLOW) != 0) {
      return LastError("set times of " + Printable(path, 200));
    }
    return OkStatus();
  });
}

}  // namespace pulga
