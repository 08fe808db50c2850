// RecordWriter and RecordReader: tokens of a layer's record inside one zstd stream.
#include <algorithm>
#include <array>
#include <cstring>

#include "images/layer_path.h"
#include "images/layer_record.h"
#include "images/zstd_sink.h"

namespace pulga {
namespace {

constexpr char kRawToken = 'r';
constexpr char kFileToken = 'f';
constexpr char kEndToken = 'e';
constexpr uint64_t kMaxRaw = 64 * 1024;
constexpr uint64_t kMaxText = 64 * 1024;

Error Damaged() { return {Code::kInvalidArgument, 0, "the layer's record is damaged"}; }

}  // namespace

RecordWriter::RecordWriter(int fd) : sink_(std::make_unique<ZstdSink>(fd)) {}
RecordWriter::~RecordWriter() = default;

void RecordWriter::Put(std::string_view bytes) { sink_->Write(bytes); }

void RecordWriter::PutNumber(uint64_t value) {
  char bytes[10];
  size_t size = 0;
  for (; value >= 0x80; value >>= 7) bytes[size++] = static_cast<char>(value | 0x80);
  bytes[size++] = static_cast<char>(value);
  Put({bytes, size});
}

void RecordWriter::PutText(std::string_view text) {
  PutNumber(text.size());
  Put(text);
}

void RecordWriter::Raw(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, kMaxRaw);
    Put({&kRawToken, 1});
    PutText(part);
    bytes.remove_prefix(part.size());
  }
}

void RecordWriter::File(std::string_view path, uint64_t size, uint64_t sum) {
  Put({&kFileToken, 1});
  PutText(path);
  PutNumber(size);
  char bytes[8];
  for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = static_cast<char>(sum >> (8 * i));
  Put({bytes, sizeof bytes});
}

void RecordWriter::EndOfTar() { Put({&kEndToken, 1}); }

Status RecordWriter::Finish() {
  const Status written = sink_->Finish();
  return written.ok() ? written : Prefix("write the layer's record", written.error());
}

struct RecordReader::State {
  FileRange file;
  std::unique_ptr<ByteSource> plain;
  std::array<char, 16384> buffer = {};
  size_t at = 0;
  size_t end = 0;

  State(int fd, uint64_t offset, uint64_t size)
      : file(fd, offset, size), plain(MakeZstdSource(file)) {}

  Status Take(std::span<char> out) {
    while (!out.empty()) {
      if (at == end) {
        PULGA_ASSIGN_OR_RETURN(end, plain->Read(buffer));
        at = 0;
        if (end == 0) return Damaged();
      }
      const size_t n = std::min(out.size(), end - at);
      memcpy(out.data(), buffer.data() + at, n);
      at += n;
      out = out.subspan(n);
    }
    return OkStatus();
  }
};

RecordReader::RecordReader(int fd, uint64_t offset, uint64_t size)
    : state_(std::make_unique<State>(fd, offset, size)) {}
RecordReader::~RecordReader() = default;

Status RecordReader::ReadRaw(std::span<char> out) { return state_->Take(out); }

Result<uint64_t> RecordReader::Number() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    char byte = 0;
    PULGA_RETURN_IF_ERROR(state_->Take({&byte, 1}));
    value |= (uint64_t{static_cast<unsigned char>(byte)} & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return Damaged();
}

Result<std::string> RecordReader::Text() {
  PULGA_ASSIGN_OR_RETURN(const uint64_t size, Number());
  if (size > kMaxText) return Damaged();
  std::string text(size, '\0');
  PULGA_RETURN_IF_ERROR(state_->Take(text));
  return text;
}

Result<RecordReader::Token> RecordReader::Next() {
  char kind = 0;
  PULGA_RETURN_IF_ERROR(state_->Take({&kind, 1}));
  Token token;
  if (kind == kEndToken) return token;
  if (kind == kRawToken) {
    token.kind = Kind::kRaw;
    PULGA_ASSIGN_OR_RETURN(token.size, Number());
    if (token.size > kMaxRaw) return Damaged();
    return token;
  }
  if (kind != kFileToken) return Damaged();
  token.kind = Kind::kFile;
  PULGA_ASSIGN_OR_RETURN(token.path, Text());
  PULGA_ASSIGN_OR_RETURN(token.size, Number());
  char bytes[8];
  PULGA_RETURN_IF_ERROR(state_->Take(bytes));
  for (size_t i = 0; i < sizeof bytes; ++i) {
    token.sum |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  if (token.path.empty() || token.path.size() > kMaxPathBytes || token.size > INT64_MAX) {
    return Damaged();
  }
  return token;
}

}  // namespace pulga
