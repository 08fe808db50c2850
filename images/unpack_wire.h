// What the importer and the unpacker write to each other through the request file and the channel
// of a job (base/unpack_job.h). Little-endian u64 and length-prefixed bytes. Both sides read it as
// if the other were hostile: every length is checked, and anything left over is an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unpack_job.h"

namespace pulga {

class FieldWriter {
 public:
  void PutU64(uint64_t value);
  void PutBytes(std::string_view bytes);
  const std::string& bytes() const { return bytes_; }
  void Clear() { bytes_.clear(); }

 private:
  std::string bytes_;
};

class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : rest_(bytes) {}
  uint64_t U64();
  std::string_view Bytes();
  // No read went past the end.
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && rest_.empty(); }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// One request for all kinds; each kind uses the fields named after it.
struct UnpackOrder {
  UnpackKind kind = UnpackKind::kList;
  uint64_t offset = 0;         // kUnpackLayer: the blob's place in the input
  uint64_t size = 0;           // kUnpackLayer
  std::string blob_digest;     // kUnpackLayer: "sha256:..." the blob must have as stored, or empty
  std::string diff_id;         // kUnpackLayer: 64 hex digits the uncompressed tar must have; empty:
                               // it was checked, the blob is that tar
  uint64_t max_entries = 0;    // kUnpackLayer: tar entries; kIngest: members
  uint64_t max_bytes = 0;      // kUnpackLayer: of regular files; kIngest: of output
  uint64_t max_stream = 0;     // kUnpackLayer: of the uncompressed tar
  uint64_t reserve_bytes = 0;  // kIngest, kUnpackLayer: of the disk, to be left free

  std::string Encode() const;
  static std::optional<UnpackOrder> Decode(std::string_view bytes);
};

// Told by a successful kUnpackLayer.
struct LayerResult {
  uint64_t entries = 0;
  uint64_t bytes = 0;  // of regular files, apparent size
  uint64_t devices_skipped = 0;
  uint64_t ids_squashed = 0;  // entries whose uid or gid is not mapped
  uint64_t xattrs_dropped = 0;
  uint64_t stream_bytes = 0;  // of the uncompressed tar
  uint64_t disk_bytes = 0;    // blocks the layer's directory takes

  std::string Encode() const;
  static std::optional<LayerResult> Decode(std::string_view bytes);
};

// Told by a failed job of any kind: a code and one line for people.
std::string EncodeFailure(const Error& error);
std::optional<Error> DecodeFailure(std::string_view bytes);

}  // namespace pulga
