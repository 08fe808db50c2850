// A stream of bytes, pulled: a range of a file, a meter on the way, or what a decompressor makes
// of it. Bounded memory whatever the stream says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "images/digest.h"

namespace pulga {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to out.size() bytes; 0 only at the end.
  virtual Result<size_t> Read(std::span<char> out) = 0;
};

// [offset, offset + size) of a file, by pread. A shorter file is kInvalidArgument.
class FileRange final : public ByteSource {
 public:
  FileRange(int fd, uint64_t offset, uint64_t size) : fd_(fd), offset_(offset), left_(size) {}
  Result<size_t> Read(std::span<char> out) override;

 private:
  int fd_;
  uint64_t offset_;
  uint64_t left_;
};

// Passes bytes on, counting them and hashing them where somebody will ask; kTooLarge past `limit`.
class Meter final : public ByteSource {
 public:
  Meter(ByteSource& from, std::optional<DigestAlgorithm> algorithm, uint64_t limit)
      : from_(from), limit_(limit) {
    if (algorithm) hasher_.emplace(*algorithm);
  }
  Result<size_t> Read(std::span<char> out) override;
  uint64_t count() const { return count_; }
  Digest Finish() { return hasher_->Finish(); }  // with an algorithm only

 private:
  ByteSource& from_;
  std::optional<Hasher> hasher_;
  uint64_t limit_;
  uint64_t count_ = 0;
};

enum class Compression { kNone, kGzip, kZstd };
// By the first four bytes.
Compression SniffCompression(std::string_view head);
// The same of a range of a file.
Result<Compression> SniffCompression(int fd, uint64_t offset, uint64_t size);

// All members of a gzip file, then trailing zeros; anything else behind them is an error.
std::unique_ptr<ByteSource> MakeGzipSource(ByteSource& compressed);
// All frames, skippable ones skipped; windows over 8 MiB are refused.
std::unique_ptr<ByteSource> MakeZstdSource(ByteSource& compressed);
// nullptr for kNone.
std::unique_ptr<ByteSource> MakeDecompressor(Compression kind, ByteSource& compressed);
// Reads to the end; what trailing padding needs.
Status Drain(ByteSource& source);

}  // namespace pulga
