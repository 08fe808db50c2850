// A layer's record: what is needed beside its directory to put its uncompressed tar together again,
// byte for byte, and to tell whether the directory is still what was unpacked. One zstd stream of
//   raw bytes of the tar (headers, padding, everything that is no regular file's content) and
//   files (path in the layer's directory, size, ContentSum) in the tar's order; then the tree
//   (tree_record.h). Written while unpacking, read by export and verify, all in the confined
// unpacker; bounded memory. Nobody believes a record: the diff-id decides.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "images/byte_source.h"
#include "images/content_sum.h"
#include "images/layer_difference.h"

namespace pulga {

class ZstdSink;

// Tokens, compressed, to the end of a file.
class RecordWriter {
 public:
  // Writes at `fd`'s position.
  explicit RecordWriter(int fd);
  ~RecordWriter();
  RecordWriter(const RecordWriter&) = delete;
  RecordWriter& operator=(const RecordWriter&) = delete;

  void Raw(std::string_view bytes);
  void File(std::string_view path, uint64_t size, uint64_t sum);
  void EndOfTar();
  // For tree_record.cpp.
  void PutNumber(uint64_t value);
  void PutText(std::string_view text);
  // Everything is on its way to the file, or what went wrong first.
  Status Finish();

 private:
  void Put(std::string_view bytes);
  std::unique_ptr<ZstdSink> sink_;
};

class RecordReader {
 public:
  // From `fd`'s byte `offset` to its end.
  RecordReader(int fd, uint64_t offset, uint64_t size);
  ~RecordReader();

  enum class Kind { kRaw, kFile, kEndOfTar };
  struct Token {
    Kind kind = Kind::kEndOfTar;
    uint64_t size = 0;  // kRaw: of the bytes that follow, to be taken with ReadRaw
    uint64_t sum = 0;   // kFile
    std::string path;   // kFile
  };
  // kInvalidArgument for a damaged record.
  Result<Token> Next();
  Status ReadRaw(std::span<char> out);
  // For tree_record.cpp.
  Result<uint64_t> Number();
  Result<std::string> Text();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Between a layer's raw bytes and its tar reader: passes everything on and writes the record.
class LayerRecorder final : public ByteSource {
 public:
  // All but `from` are the caller's and outlive this.
  LayerRecorder(ByteSource& from, RecordWriter& record) : from_(from), record_(record) {}
  Result<size_t> Read(std::span<char> out) override;

  // [offset, offset + size) of the stream is the content of the regular file `path`. Called after
  // the first of these bytes has been read and before anything behind the first piece of them is.
  Status Content(const std::string& path, uint64_t offset, uint64_t size);
  // The file or directory `path` is about to be replaced: contents recorded by it are lost.
  void Lost(const std::string& path);
  // The stream was read to its end.
  void Finish();

  uint64_t stream_bytes() const { return position_; }
  // What RewriteRecord has to keep inside the record.
  const std::set<std::string>& lost() const { return lost_; }

 private:
  void Pass(std::string_view content);
  std::string_view open() const { return std::string_view(held_).substr(used_); }

  ByteSource& from_;
  RecordWriter& record_;
  uint64_t position_ = 0;  // of the next byte to read
  std::string held_;       // the last bytes read; from used_ on it is open what they are
  size_t used_ = 0;
  std::string path_;  // of the file whose content is passing
  uint64_t size_ = 0;
  uint64_t left_ = 0;
  ContentSum sum_;
  std::set<std::string> lost_;
  size_t lost_bytes_ = 0;
};

// Writes `from`'s tar part anew, with the content of lost files in it, taken from `tar`, which is
// the layer's stream once more. Rare: a member that comes twice.
Status RewriteRecord(RecordReader& from, ByteSource& tar, const std::set<std::string>& lost,
                     RecordWriter& to);

// The layer's uncompressed tar, from its record and its directory.
class LayerReassembler final : public ByteSource {
 public:
  LayerReassembler(RecordReader& record, int layer_fd) : record_(record), layer_fd_(layer_fd) {}
  // Ends at the end of the tar; the record then stands at its tree.
  Result<size_t> Read(std::span<char> out) override;
  // Files that are not what was recorded; zeros stand in for what is not there.
  const std::vector<LayerDifference>& differences() const { return differences_; }
  uint64_t difference_count() const { return difference_count_; }

 private:
  Status Advance();
  Result<size_t> ReadContent(std::span<char> out);
  void OpenContent();
  void Differ(const char* what);

  RecordReader& record_;
  int layer_fd_;
  RecordReader::Token token_;
  uint64_t left_ = 0;  // of the token's bytes
  UniqueFd file_;
  bool broken_ = false;  // the file has been told of
  ContentSum sum_;
  bool ended_ = false;
  std::vector<LayerDifference> differences_;  // the first ones
  uint64_t difference_count_ = 0;
};

}  // namespace pulga
