#include "images/unpack_wire.h"

#include <cstring>

#include "base/text.h"

namespace pulga {
namespace {

constexpr std::string_view kRequestMagic = "pulga-unpack-1";
constexpr std::string_view kResultMagic = "pulga-layer-1";
constexpr std::string_view kFailureMagic = "pulga-failed ";
constexpr size_t kMaxReason = 1024;

}  // namespace

void FieldWriter::PutU64(uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8) {
    bytes_ += static_cast<char>(static_cast<unsigned char>(value >> shift));
  }
}

void FieldWriter::PutBytes(std::string_view bytes) {
  PutU64(bytes.size());
  bytes_ += bytes;
}

uint64_t FieldReader::U64() {
  if (rest_.size() < 8) {
    ok_ = false;
    return 0;
  }
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) {
    value |= uint64_t{static_cast<unsigned char>(rest_[i])} << (8 * i);
  }
  rest_.remove_prefix(8);
  return value;
}

std::string_view FieldReader::Bytes() {
  const uint64_t size = U64();
  if (!ok_ || size > rest_.size()) {
    ok_ = false;
    return {};
  }
  const std::string_view out = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return out;
}

std::string UnpackOrder::Encode() const {
  FieldWriter out;
  out.PutBytes(kRequestMagic);
  out.PutU64(static_cast<uint64_t>(kind));
  out.PutU64(offset);
  out.PutU64(size);
  out.PutBytes(blob_digest);
  out.PutBytes(diff_id);
  out.PutU64(max_entries);
  out.PutU64(max_bytes);
  out.PutU64(max_stream);
  out.PutU64(reserve_bytes);
  return out.bytes();
}

std::optional<UnpackOrder> UnpackOrder::Decode(std::string_view bytes) {
  FieldReader in(bytes);
  if (in.Bytes() != kRequestMagic) return std::nullopt;
  UnpackOrder request;
  const uint64_t kind = in.U64();
  if (kind < 1 || kind > static_cast<uint64_t>(UnpackKind::kExportLayer)) return std::nullopt;
  request.kind = static_cast<UnpackKind>(kind);
  request.offset = in.U64();
  request.size = in.U64();
  request.blob_digest = in.Bytes();
  request.diff_id = in.Bytes();
  request.max_entries = in.U64();
  request.max_bytes = in.U64();
  request.max_stream = in.U64();
  request.reserve_bytes = in.U64();
  if (!in.AtEnd() || request.offset > INT64_MAX || request.size > INT64_MAX - request.offset) {
    return std::nullopt;
  }
  return request;
}

std::string LayerResult::Encode() const {
  FieldWriter out;
  out.PutBytes(kResultMagic);
  out.PutU64(entries);
  out.PutU64(bytes);
  out.PutU64(devices_skipped);
  out.PutU64(ids_squashed);
  out.PutU64(xattrs_dropped);
  out.PutU64(stream_bytes);
  out.PutU64(disk_bytes);
  return out.bytes();
}

std::optional<LayerResult> LayerResult::Decode(std::string_view bytes) {
  FieldReader in(bytes);
  if (in.Bytes() != kResultMagic) return std::nullopt;
  LayerResult result;
  result.entries = in.U64();
  result.bytes = in.U64();
  result.devices_skipped = in.U64();
  result.ids_squashed = in.U64();
  result.xattrs_dropped = in.U64();
  result.stream_bytes = in.U64();
  result.disk_bytes = in.U64();
  if (!in.AtEnd()) return std::nullopt;
  return result;
}

namespace {

// Names in it were made printable where they were put in; a second time would double the escapes.
std::string OneLine(std::string_view text, size_t max_bytes) {
  std::string out(text.substr(0, max_bytes));
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) c = '?';
  }
  return out;
}

}  // namespace

std::string EncodeFailure(const Error& error) {
  return std::string(kFailureMagic) + std::to_string(static_cast<int>(error.code)) + " " +
         OneLine(error.message, kMaxReason) + "\n";
}

std::optional<Error> DecodeFailure(std::string_view bytes) {
  if (!bytes.starts_with(kFailureMagic)) return std::nullopt;
  bytes.remove_prefix(kFailureMagic.size());
  const size_t space = bytes.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto code = ParseUint(bytes.substr(0, space), static_cast<uint64_t>(Code::kInternal));
  if (!code) return std::nullopt;
  std::string_view text = bytes.substr(space + 1);
  text = text.substr(0, text.find('\n'));
  return Error{static_cast<Code>(*code), 0, OneLine(text, 4 * kMaxReason)};
}

}  // namespace pulga
