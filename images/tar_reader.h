// One tar stream (ustar, PAX, GNU, sparse), entry by entry. The only place that touches libarchive,
// and of libarchive only its tar reader, fed by callback: no filters, no other format, no program
// run. Needs setlocale(LC_CTYPE, "C.UTF-8") before, or names are looked up in the C library's
// conversion tables, which would be read from the image after a chroot.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/byte_source.h"

namespace pulga {

enum class EntryType { kFile, kDirectory, kSymlink, kHardLink, kFifo, kDevice, kOther };

struct TarXattr {
  std::string name;
  std::string value;
};

struct TarEntry {
  EntryType type = EntryType::kOther;
  std::string name;         // as written
  std::string link_target;  // kSymlink and kHardLink
  uint64_t size = 0;        // apparent, kFile
  uint32_t mode = 0;        // & 07777
  int64_t uid = 0;
  int64_t gid = 0;
  timespec mtime = {};
  std::vector<TarXattr> xattrs;
  bool sparse = false;
};

struct TarBlock {
  std::string_view bytes;
  uint64_t offset = 0;         // in the file; gaps are holes
  uint64_t stream_offset = 0;  // of the source
};

class TarReader {
 public:
  // `source` is read from front to end, not past the end-of-archive marks: drain it for padding.
  static Result<std::unique_ptr<TarReader>> Open(ByteSource& source);
  ~TarReader();

  // nullptr at the end. The entry is valid until the next call.
  Result<const TarEntry*> Next();
  // The next piece of the current entry's content; nullopt at its end.
  Result<std::optional<TarBlock>> ReadBlock();

 private:
  struct State;
  explicit TarReader(std::unique_ptr<State> state);
  Status SkipContent();
  std::unique_ptr<State> state_;
};

}  // namespace pulga
