// Whole-file reads and writes, bounded; directories. Blocks on the disk: storage thread, start-up
// and the helper processes only, never the loop thread once it serves.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

// Opens with O_CLOEXEC added. The error names the path.
Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode = 0);
Result<UniqueFd> OpenFileAt(int dir_fd, const std::string& path, int flags, mode_t mode = 0);
// An unnamed file in `dir`, read-write (O_TMPFILE, or a created and unlinked one without it).
Result<UniqueFd> OpenUnnamedFile(const std::string& dir);

// kTooLarge when the file holds more than `limit` bytes.
Result<std::string> ReadFile(const std::string& path, size_t limit = 1 << 20);
Result<std::string> ReadFd(int fd, size_t limit);
// All of [offset, offset + size); kIo when the file is shorter.
Result<std::string> ReadAt(int fd, off_t offset, size_t size);

Status WriteAll(int fd, std::string_view data);
// Creates or truncates; not atomic.
Status WriteFile(const std::string& path, std::string_view data, mode_t mode = 0644);
// Writes beside, fsyncs, renames over and fsyncs the directory.
Status WriteFileDurably(const std::string& path, std::string_view data, mode_t mode);

// mkdir -p; existing directories keep their mode.
Status MakeDirs(const std::string& path, mode_t mode = 0755);
// What readdir tells of, "." and ".." too, in no order. The open itself resolves nothing.
Result<std::vector<std::string>> ListNames(int dir_fd);
// rm -r by directory fds: follows no symlink, crosses no mount, does not recurse on the stack.
Status RemoveTree(int parent_fd, const std::string& name);

Status SetNonBlocking(int fd);
// What an ordinary user may still fill of the disk that `path` is on.
Result<uint64_t> FreeDiskBytes(const std::string& path);

}  // namespace pulga
