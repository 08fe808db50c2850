#include "images/ingest.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file_io.h"
#include "base/text.h"
#include "base/units.h"
#include "images/archive_index.h"
#include "images/archive_kind.h"
#include "images/byte_source.h"
#include "images/disk_reserve.h"
#include "images/job_events.h"
#include "images/layer_path.h"
#include "images/tar_reader.h"

namespace pulga {
namespace {

constexpr size_t kHeadBytes = 512;
constexpr uint64_t kMaxNameBytes = 4 << 20;  // of all members: the importer keeps them in memory

class Descriptor final : public ByteSource {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Result<size_t> Read(std::span<char> out) override {
    while (true) {
      const ssize_t n = read(fd_, out.data(), out.size());
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) return LastError("read the upload");
    }
  }

 private:
  int fd_;
};

// A stream whose first bytes can be looked at before they are read.
class Peekable final : public ByteSource {
 public:
  explicit Peekable(ByteSource& from) : from_(from) {}
  // kHeadBytes, or all there are.
  Result<std::string_view> Head() {
    head_.resize(kHeadBytes);
    size_t size = 0;
    while (size < head_.size()) {
      const std::span<char> rest(head_.data() + size, head_.size() - size);
      PULGA_ASSIGN_OR_RETURN(const size_t n, from_.Read(rest));
      if (n == 0) break;
      size += n;
    }
    head_.resize(size);
    return std::string_view(head_);
  }
  Result<size_t> Read(std::span<char> out) override {
    if (given_ == head_.size()) return from_.Read(out);
    const size_t n = std::min(out.size(), head_.size() - given_);
    std::copy_n(head_.data() + given_, n, out.data());
    given_ += n;
    return n;
  }

 private:
  ByteSource& from_;
  std::string head_;
  size_t given_ = 0;
};

// Writes what passes through to the spool, up to a limit.
class Spooling final : public ByteSource {
 public:
  Spooling(ByteSource& from, int output_fd, const UnpackOrder& order)
      : from_(from),
        output_fd_(output_fd),
        order_(order),
        reserve_(output_fd, order.reserve_bytes) {}
  Result<size_t> Read(std::span<char> out) override {
    PULGA_ASSIGN_OR_RETURN(const size_t n, from_.Read(out));
    count_ += n;
    if (count_ > order_.max_bytes) {
      return Error{Code::kTooLarge, 0,
                   "the archive unpacks to more than " + HumanBytes(order_.max_bytes)};
    }
    PULGA_RETURN_IF_ERROR(reserve_.Spend(n));
    const Status written = WriteAll(output_fd_, std::string_view(out.data(), n));
    if (!written.ok()) return Prefix("store the upload", written.error());
    return n;
  }

 private:
  ByteSource& from_;
  int output_fd_;
  const UnpackOrder& order_;
  DiskReserve reserve_;
  uint64_t count_ = 0;
};

std::optional<MemberType> TypeOf(const TarEntry& entry) {
  if (entry.sparse || entry.link_target.size() > kMaxMemberNameBytes) return std::nullopt;
  if (entry.type == EntryType::kFile) return MemberType::kFile;
  if (entry.type == EntryType::kSymlink) return MemberType::kSymlink;
  if (entry.type == EntryType::kHardLink) return MemberType::kHardLink;
  return std::nullopt;
}

// Reads the entry's content: where it lies and what it hashes to.
Status HashContent(TarReader& tar, ArchiveMember* member) {
  Hasher hasher(DigestAlgorithm::kSha256);
  uint64_t size = 0;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const auto block, tar.ReadBlock());
    if (!block) break;
    if (size == 0) member->offset = block->stream_offset;
    if (block->offset != size) return Error{Code::kInvalidArgument, 0, "a member with holes"};
    size += block->bytes.size();
    hasher.Update(block->bytes);
  }
  if (size != member->size) return Error{Code::kInvalidArgument, 0, "a member is truncated"};
  member->sha256 = hasher.Finish().hex;
  return OkStatus();
}

Status TellMembers(TarReader& tar, const UnpackOrder& request, int channel_fd) {
  uint64_t members = 0;
  uint64_t told = 0;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const TarEntry* entry, tar.Next());
    if (entry == nullptr) return OkStatus();
    if (++members > request.max_entries) {
      return Error{Code::kTooLarge, 0,
                   "the archive has more than " + std::to_string(request.max_entries) + " members"};
    }
    const auto type = TypeOf(*entry);
    const auto name = CleanPath(entry->name);
    if (!type || !name || name->empty() || name->size() > kMaxMemberNameBytes) continue;
    ArchiveMember member;
    member.type = *type;
    member.target = entry->link_target;
    if (*type == MemberType::kFile) {
      member.size = entry->size;
      const Status hashed = HashContent(tar, &member);
      if (!hashed.ok()) return Prefix(Printable(*name, 200), hashed.error());
    }
    const std::string record = EncodeMember(*name, member);
    told += record.size();
    if (told > kMaxNameBytes) {
      return Error{Code::kTooLarge, 0, "the archive's member names are too long"};
    }
    PULGA_RETURN_IF_ERROR(SendEvent(channel_fd, JobEventKind::kMember, record));
  }
}

}  // namespace

Status RunIngest(const UnpackOrder& request, int input_fd, int output_fd, int channel_fd) {
  Descriptor input(input_fd);
  Peekable arrival(input);
  PULGA_ASSIGN_OR_RETURN(const std::string_view head, arrival.Head());
  const auto decompressor = MakeDecompressor(SniffCompression(head), arrival);
  Peekable plain(decompressor != nullptr ? *decompressor : static_cast<ByteSource&>(arrival));
  PULGA_ASSIGN_OR_RETURN(const std::string_view plain_head, plain.Head());
  const ArchiveKind kind = DetectArchive(plain_head);
  if (kind != ArchiveKind::kTar) {
    return Error{Code::kUnsupported, 0, NotAnArchive(kind, plain_head.size())};
  }
  Spooling spooled(plain, output_fd, request);
  PULGA_ASSIGN_OR_RETURN(const auto tar, TarReader::Open(spooled));
  PULGA_RETURN_IF_ERROR(TellMembers(*tar, request, channel_fd));
  return Drain(spooled);  // or the client would not get rid of it; a compressed stream has a sum
}

}  // namespace pulga
