#include "images/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "images/tar_headers.h"

namespace pulga {

namespace {
// Of one member. A sparse file's map is among them, and libarchive takes 12 bytes for each of its.
constexpr size_t kMaxHeaderBytes = 512 << 10;
constexpr size_t kBlockBytes = 512;
}  // namespace

// What the callbacks see: the stream, its last error, and one buffer.
struct TarReader::State {
  archive* handle = nullptr;
  ByteSource* source = nullptr;
  uint64_t position = 0;  // in it
  std::optional<Error> error;
  TarEntry entry;
  std::array<char, 65536> buffer = {};
  size_t filled = 0;               // of `buffer`
  std::string before;              // what came before it and is not consumed yet
  std::optional<uint64_t> header;  // where the next header begins, while it is looked for
  bool in_entry = false;
  uint64_t given = 0;  // of the entry's content

  ~State() { archive_read_free(handle); }
  uint64_t consumed() const {
    return static_cast<uint64_t>(std::max<la_int64_t>(archive_filter_bytes(handle, 0), 0));
  }
  Result<size_t> Fill();
  std::string_view HeaderBytes();
  // What went wrong below libarchive, or else what it says itself.
  Error Failure() const {
    if (error) return *error;
    const char* text = archive_error_string(handle);
    return {Code::kInvalidArgument, 0,
            std::string("damaged tar: ") + (text != nullptr ? Printable(text) : "unknown error")};
  }
};

// Reads the next piece. What libarchive has not consumed, or the header it is at, is kept.
Result<size_t> TarReader::State::Fill() {
  const uint64_t keep_from = header ? *header : consumed();
  const uint64_t buffer_at = position - filled;
  const size_t used = keep_from > buffer_at ? std::min<size_t>(keep_from - buffer_at, filled) : 0;
  if (used > 0) before.clear();  // nearly always: content is consumed as it is read
  before.append(buffer.data() + used, filled - used);
  const uint64_t before_at = position - before.size();
  before.erase(0, keep_from > before_at ? keep_from - before_at : 0);
  if (before.size() > kMaxHeaderBytes) {
    return Error{Code::kInvalidArgument, 0, "damaged tar: the headers of one member are too large"};
  }
  filled = 0;
  PULGA_ASSIGN_OR_RETURN(size_t n, source->Read(buffer));
  // `umoci insert` ends its layers with the last content, not even padded to a block.
  if (n == 0 && in_entry && given == entry.size) {
    n = (kBlockBytes - position % kBlockBytes) % kBlockBytes;
    std::fill_n(buffer.begin(), n, '\0');
  }
  filled = n;
  position += n;
  return n;
}

// The bytes from `header` on, as far as they have been read.
std::string_view TarReader::State::HeaderBytes() {
  before.append(buffer.data(), filled);
  filled = 0;
  const uint64_t before_at = position - before.size();
  return std::string_view(before).substr(*header > before_at ? *header - before_at : 0);
}

namespace {

constexpr size_t kMaxXattrs = 64;
constexpr size_t kMaxXattrBytes = 64 * 1024;

void CopyXattrs(archive_entry* from, TarEntry& to) {
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  archive_entry_xattr_reset(from);
  while (archive_entry_xattr_next(from, &name, &value, &size) == ARCHIVE_OK) {
    if (name == nullptr || to.xattrs.size() >= kMaxXattrs || size > kMaxXattrBytes) continue;
    to.xattrs.push_back({name, std::string(static_cast<const char*>(value), size)});
  }
}

EntryType TypeOf(archive_entry* entry) {
  if (archive_entry_hardlink(entry) != nullptr) return EntryType::kHardLink;
  switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
      return EntryType::kFile;
    case AE_IFDIR:
      return EntryType::kDirectory;
    case AE_IFLNK:
      return EntryType::kSymlink;
    case AE_IFIFO:
      return EntryType::kFifo;
    case AE_IFCHR:
    case AE_IFBLK:
      return EntryType::kDevice;
    default:
      return EntryType::kOther;
  }
}

const char* OrEmpty(const char* text) { return text != nullptr ? text : ""; }

void CopyEntry(archive_entry* from, TarEntry& to) {
  to = TarEntry();
  to.type = TypeOf(from);
  to.name = OrEmpty(archive_entry_pathname(from));
  if (to.type == EntryType::kHardLink) to.link_target = OrEmpty(archive_entry_hardlink(from));
  if (to.type == EntryType::kSymlink) to.link_target = OrEmpty(archive_entry_symlink(from));
  to.size = static_cast<uint64_t>(std::max<la_int64_t>(archive_entry_size(from), 0));
  to.mode = archive_entry_perm(from);
  to.uid = archive_entry_uid(from);
  to.gid = archive_entry_gid(from);
  to.mtime = {archive_entry_mtime(from), archive_entry_mtime_nsec(from)};
  to.sparse = archive_entry_sparse_count(from) > 0;
  CopyXattrs(from, to);
}

}  // namespace

TarReader::TarReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
TarReader::~TarReader() = default;

Result<std::unique_ptr<TarReader>> TarReader::Open(ByteSource& source) {
  auto state = std::make_unique<State>();
  state->source = &source;
  state->handle = archive_read_new();
  archive_read_support_format_tar(state->handle);
  archive_read_set_callback_data(state->handle, state.get());
  archive_read_set_read_callback(state->handle,
                                 [](archive*, void* data, const void** out) -> la_ssize_t {
                                   auto* self = static_cast<State*>(data);
                                   *out = self->buffer.data();
                                   const auto n = self->Fill();
                                   if (n.ok()) return static_cast<la_ssize_t>(*n);
                                   self->error = n.error();
                                   return -1;
                                 });
  if (archive_read_open1(state->handle) != ARCHIVE_OK) return state->Failure();
  return std::unique_ptr<TarReader>(new TarReader(std::move(state)));
}

// To the first of the next member's headers.
Status TarReader::SkipContent() {
  if (!std::exchange(state_->in_entry, false)) return OkStatus();
  const int code = archive_read_data_skip(state_->handle);
  if (code == ARCHIVE_EOF) return Error{Code::kInvalidArgument, 0, "damaged tar: it is truncated"};
  return code == ARCHIVE_OK || code == ARCHIVE_WARN ? OkStatus() : Status(state_->Failure());
}

Result<const TarEntry*> TarReader::Next() {
  PULGA_RETURN_IF_ERROR(SkipContent());
  archive_entry* entry = nullptr;
  state_->header = state_->consumed();
  const int code = archive_read_next_header(state_->handle, &entry);
  if (code == ARCHIVE_EOF && !state_->error) return nullptr;
  if (code == ARCHIVE_WARN) {
    // A name that is not UTF-8 is kept byte for byte; any other doubt is a refusal.
    const char* text = archive_error_string(state_->handle);
    if (text == nullptr || strstr(text, "converted") == nullptr) return state_->Failure();
  } else if (code != ARCHIVE_OK) {
    return state_->Failure();
  }
  state_->in_entry = true;
  state_->given = 0;
  CopyEntry(entry, state_->entry);
  PULGA_ASSIGN_OR_RETURN(const PaxNames names, CheckHeaders(state_->HeaderBytes()));
  if (!names.path.empty()) state_->entry.name = names.path;
  const bool link = !state_->entry.link_target.empty();
  if (link && !names.link_path.empty()) state_->entry.link_target = names.link_path;
  state_->header.reset();
  return &state_->entry;
}

Result<std::optional<TarBlock>> TarReader::ReadBlock() {
  const void* data = nullptr;
  size_t size = 0;
  la_int64_t offset = 0;
  const int code = archive_read_data_block(state_->handle, &data, &size, &offset);
  if (code == ARCHIVE_EOF && !state_->error) return std::optional<TarBlock>();
  if (code != ARCHIVE_OK) return state_->Failure();
  state_->given += size;
  // A block is handed out before it counts as consumed.
  const auto at = static_cast<uint64_t>(archive_filter_bytes(state_->handle, 0));
  return std::optional<TarBlock>(
      TarBlock{{static_cast<const char*>(data), size}, static_cast<uint64_t>(offset), at});
}

}  // namespace pulga
