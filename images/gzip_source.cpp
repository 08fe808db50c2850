#include <zlib.h>

#include <algorithm>
#include <array>

#include "images/byte_source.h"

namespace pulga {
namespace {

Error Damaged(const char* what) {
  return {Code::kInvalidArgument, 0, std::string("damaged gzip data: ") + what};
}

class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(ByteSource& compressed) : from_(compressed) {
    PULGA_CHECK(inflateInit2(&stream_, 15 + 16) == Z_OK);
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  Result<size_t> Read(std::span<char> out) override;

 private:
  Status Fill();
  // After a member: more members, or zeros to the end. True when there is another member.
  Result<bool> NextMember();

  ByteSource& from_;
  z_stream stream_ = {};
  std::array<char, 32768> input_ = {};
  bool ended_ = false;
  bool between_ = false;  // a member has ended and no other one begun
};

Status GzipSource::Fill() {
  PULGA_ASSIGN_OR_RETURN(const size_t n, from_.Read(input_));
  stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
  stream_.avail_in = static_cast<uInt>(n);
  return OkStatus();
}

Result<bool> GzipSource::NextMember() {
  bool zeros = false;
  while (true) {
    if (stream_.avail_in == 0) PULGA_RETURN_IF_ERROR(Fill());
    if (stream_.avail_in == 0) return false;
    if (*stream_.next_in != 0) break;
    zeros = true;
    ++stream_.next_in;
    --stream_.avail_in;
  }
  if (zeros || *stream_.next_in != 0x1f) return Damaged("something else follows it");
  inflateReset(&stream_);
  return true;
}

Result<size_t> GzipSource::Read(std::span<char> out) {
  if (ended_ || out.empty()) return size_t{0};
  stream_.next_out = reinterpret_cast<Bytef*>(out.data());
  stream_.avail_out = static_cast<uInt>(std::min<size_t>(out.size(), 1u << 30));
  const uInt room = stream_.avail_out;
  while (stream_.avail_out == room) {
    if (between_) {
      PULGA_ASSIGN_OR_RETURN(const bool more, NextMember());
      between_ = false;
      if (!more) {
        ended_ = true;
        return size_t{0};
      }
    }
    if (stream_.avail_in == 0) PULGA_RETURN_IF_ERROR(Fill());
    if (stream_.avail_in == 0) return Damaged("it is truncated");
    const int code = inflate(&stream_, Z_NO_FLUSH);
    if (code == Z_STREAM_END) {
      between_ = true;
    } else if (code == Z_MEM_ERROR) {
      return Error{Code::kNoSpace, 0, "out of memory"};
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      return Damaged(stream_.msg != nullptr ? stream_.msg : "unknown error");
    }
  }
  return size_t{room - stream_.avail_out};
}

}  // namespace

std::unique_ptr<ByteSource> MakeGzipSource(ByteSource& compressed) {
  return std::make_unique<GzipSource>(compressed);
}

}  // namespace pulga
