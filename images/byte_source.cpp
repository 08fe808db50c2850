#include "images/byte_source.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/file_io.h"
#include "base/units.h"

namespace pulga {

Result<size_t> FileRange::Read(std::span<char> out) {
  const size_t want = static_cast<size_t>(std::min<uint64_t>(out.size(), left_));
  if (want == 0) return size_t{0};
  while (true) {
    const ssize_t n = pread(fd_, out.data(), want, static_cast<off_t>(offset_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("read the archive");
    if (n == 0) return Error{Code::kInvalidArgument, 0, "the archive is truncated"};
    offset_ += static_cast<uint64_t>(n);
    left_ -= static_cast<uint64_t>(n);
    return static_cast<size_t>(n);
  }
}

Result<size_t> Meter::Read(std::span<char> out) {
  PULGA_ASSIGN_OR_RETURN(const size_t n, from_.Read(out));
  count_ += n;
  if (count_ > limit_) {
    return Error{Code::kTooLarge, 0, "it unpacks to more than " + HumanBytes(limit_)};
  }
  if (hasher_) hasher_->Update(std::string_view(out.data(), n));
  return n;
}

Result<Compression> SniffCompression(int fd, uint64_t offset, uint64_t size) {
  const auto read = ReadAt(fd, static_cast<off_t>(offset), std::min<uint64_t>(size, 4));
  if (!read.ok()) return read.error();
  return SniffCompression(*read);
}

Compression SniffCompression(std::string_view head) {
  head = head.substr(0, 4);
  using std::string_view_literals::operator""sv;
  if (head.starts_with("\x1f\x8b"sv)) return Compression::kGzip;
  if (head == "\x28\xb5\x2f\xfd"sv) return Compression::kZstd;
  const bool skippable = head.size() == 4 && (static_cast<unsigned char>(head[0]) & 0xf0) == 0x50 &&
                         head.substr(1) == "\x2a\x4d\x18"sv;
  return skippable ? Compression::kZstd : Compression::kNone;
}

std::unique_ptr<ByteSource> MakeDecompressor(Compression kind, ByteSource& compressed) {
  if (kind == Compression::kGzip) return MakeGzipSource(compressed);
  if (kind == Compression::kZstd) return MakeZstdSource(compressed);
  return nullptr;
}

Status Drain(ByteSource& source) {
  char buffer[16384];
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const size_t n, source.Read(buffer));
    if (n == 0) return OkStatus();
  }
}

}  // namespace pulga
