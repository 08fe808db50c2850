#include "images/record_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/file_io.h"
#include "base/sys.h"

namespace pulga {
namespace {

constexpr const char* kUnfinished = ".new-";

Result<uint64_t> CopyAll(int from_fd, int to_fd) {
  std::string buffer(65536, '\0');
  uint64_t size = 0;
  while (true) {
    const ssize_t n = pread(from_fd, buffer.data(), buffer.size(), static_cast<off_t>(size));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("read");
    if (n == 0) return size;
    PULGA_RETURN_IF_ERROR(
        WriteAll(to_fd, std::string_view(buffer).substr(0, static_cast<size_t>(n))));
    size += static_cast<uint64_t>(n);
  }
}

}  // namespace

std::string RecordStore::UnfinishedPathOf(const LayerId& layer) const {
  return dir_ + "/" + kUnfinished + layer.Hex();
}

Result<uint64_t> RecordStore::Store(const LayerId& layer, int record_fd) const {
  PULGA_RETURN_IF_ERROR(MakeDirs(dir_, 0700));
  const std::string beside = UnfinishedPathOf(layer);
  const auto failed = [&](const Error& error) {
    unlink(beside.c_str());
    return ErrnoError("store the layer's record", error.sys_errno);
  };
  const auto copy = OpenFile(beside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!copy.ok()) return failed(copy.error());
  const auto size = CopyAll(record_fd, copy->get());
  if (!size.ok()) return failed(size.error());
  if (PULGA_SYS(rename, beside.c_str(), PathOf(layer).c_str()) != 0) {
    return failed(LastError("rename"));
  }
  return size;
}

Result<UniqueFd> RecordStore::Open(const LayerId& layer) const {
  auto record = OpenFile(PathOf(layer), O_RDONLY | O_NOFOLLOW);
  if (record.ok()) return record;
  return ErrnoError("open the layer's record", record.error().sys_errno);
}

Status RecordStore::Remove(const LayerId& layer) const {
  for (const std::string& path : {UnfinishedPathOf(layer), PathOf(layer)}) {
    if (PULGA_SYS(unlink, path.c_str()) == 0 || errno == ENOENT) continue;
    return LastError("remove the layer's record");
  }
  return OkStatus();
}

Result<std::vector<LayerId>> RecordStore::List() const {
  const auto dir = OpenFile(dir_, O_RDONLY | O_DIRECTORY);
  if (!dir.ok() && dir.error().sys_errno == ENOENT) return std::vector<LayerId>();
  if (!dir.ok()) return dir.error();
  const auto names = ListNames(dir->get());
  if (!names.ok()) return Prefix(dir_, names.error());
  std::vector<LayerId> layers;
  for (const std::string& name : *names) {
    const bool unfinished = name.starts_with(kUnfinished);
    const auto id = LayerId::FromHex(unfinished ? name.substr(strlen(kUnfinished)) : name);
    if (id) layers.push_back(*id);
  }
  return layers;
}

}  // namespace pulga
