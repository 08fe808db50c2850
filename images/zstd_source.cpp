#include <zstd.h>

#include <array>
#include <string>

#include "base/check.h"
#include "base/file_io.h"
#include "images/byte_source.h"
#include "images/zstd_sink.h"

namespace pulga {
namespace {

constexpr int kMaxWindowLog = 23;  // 8 MiB: what `zstd -19` needs

class ZstdSource final : public ByteSource {
 public:
  explicit ZstdSource(ByteSource& compressed) : from_(compressed), context_(ZSTD_createDCtx()) {
    PULGA_CHECK(context_ != nullptr);
    ZSTD_DCtx_setParameter(context_, ZSTD_d_windowLogMax, kMaxWindowLog);
  }
  ~ZstdSource() override { ZSTD_freeDCtx(context_); }
  Result<size_t> Read(std::span<char> out) override;

 private:
  ByteSource& from_;
  ZSTD_DCtx* context_;
  std::array<char, 32768> buffer_ = {};
  ZSTD_inBuffer input_ = {buffer_.data(), 0, 0};
  bool inside_frame_ = true;
};

Result<size_t> ZstdSource::Read(std::span<char> out) {
  ZSTD_outBuffer output = {out.data(), out.size(), 0};
  while (output.pos == 0 && !out.empty()) {
    bool at_end = false;
    if (input_.pos == input_.size) {
      PULGA_ASSIGN_OR_RETURN(const size_t n, from_.Read(buffer_));
      input_ = {buffer_.data(), n, 0};
      at_end = n == 0;
    }
    if (at_end && !inside_frame_) return size_t{0};
    const size_t code = ZSTD_decompressStream(context_, &output, &input_);
    if (ZSTD_isError(code) != 0) {
      return Error{Code::kInvalidArgument, 0,
                   std::string("damaged zstd data: ") + ZSTD_getErrorName(code)};
    }
    inside_frame_ = code != 0;
    if (at_end && output.pos == 0) {
      return Error{Code::kInvalidArgument, 0, "damaged zstd data: it is truncated"};
    }
  }
  return output.pos;
}

// For what is headers over and over again.
constexpr int kSinkLevel = 1;
constexpr int kSinkWindowLog = 19;
constexpr size_t kSinkBytes = 32768;

}  // namespace

struct ZstdSink::State {
  int fd;
  ZSTD_CCtx* context = ZSTD_createCCtx();
  std::array<char, kSinkBytes> out = {};
  std::string pending;
  Status failed;

  explicit State(int file) : fd(file) {
    PULGA_CHECK(context != nullptr);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, kSinkLevel);
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, kSinkWindowLog);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  }
  ~State() { ZSTD_freeCCtx(context); }

  void Compress(ZSTD_EndDirective directive) {
    ZSTD_inBuffer input = {pending.data(), pending.size(), 0};
    while (failed.ok()) {
      ZSTD_outBuffer output = {out.data(), out.size(), 0};
      const size_t left = ZSTD_compressStream2(context, &output, &input, directive);
      if (ZSTD_isError(left) != 0) {
        failed = Error{Code::kInternal, 0, std::string("compress: ") + ZSTD_getErrorName(left)};
        break;
      }
      failed = WriteAll(fd, {out.data(), output.pos});
      if (input.pos == input.size && (directive == ZSTD_e_continue || left == 0)) break;
    }
    pending.clear();
  }
};

ZstdSink::ZstdSink(int fd) : state_(std::make_unique<State>(fd)) {}
ZstdSink::~ZstdSink() = default;

void ZstdSink::Write(std::string_view bytes) {
  state_->pending += bytes;
  if (state_->pending.size() >= kSinkBytes) state_->Compress(ZSTD_e_continue);
}

Status ZstdSink::Finish() {
  state_->Compress(ZSTD_e_end);
  return state_->failed;
}

std::unique_ptr<ByteSource> MakeZstdSource(ByteSource& compressed) {
  return std::make_unique<ZstdSource>(compressed);
}

}  // namespace pulga
