#include "images/unpack_jobs.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>

#include "base/file_io.h"
#include "base/text.h"
#include "images/archive_index.h"
#include "images/archive_kind.h"
#include "images/byte_source.h"
#include "images/job_events.h"
#include "images/layer_path.h"
#include "images/layer_record.h"
#include "images/layer_writer.h"
#include "images/tar_reader.h"
#include "images/tree_record.h"

namespace pulga {
namespace {

// The algorithm to check `digest` with; none when nothing is expected.
std::optional<DigestAlgorithm> AlgorithmOf(const std::string& digest) {
  const auto parsed = ParseDigest(digest);
  return parsed ? std::optional(parsed->algorithm) : std::nullopt;
}

Status Verify(std::string_view what, const std::string& expected, Meter& meter) {
  if (expected.empty()) return OkStatus();
  if (!AlgorithmOf(expected)) return Error{Code::kInternal, 0, "an unknown digest: " + expected};
  const std::string found = meter.Finish().ToString();
  if (expected == found) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               std::string(what) + " is " + found + ", expected " + expected};
}

// The compression of the blob; an error naming it where it is none we read. A blob that was found
// to be the layer's tar itself is not asked what it is: what it would unpack to has no diff-id.
Result<Compression> CompressionOf(const UnpackOrder& request, int input_fd) {
  PULGA_ASSIGN_OR_RETURN(
      const std::string head,
      ReadAt(input_fd, static_cast<off_t>(request.offset), std::min<uint64_t>(request.size, 512)));
  const std::string_view foreign = ForeignFormat(head);
  if (foreign.empty()) {
    return request.diff_id.empty() ? Compression::kNone : SniffCompression(head);
  }
  return Error{Code::kInvalidArgument, 0,
               "it is " + std::string(foreign) + "; a plain, gzip or zstd tar is expected"};
}

Status CopyOver(int from_fd, int to_fd) {
  if (ftruncate(to_fd, 0) != 0 || lseek(to_fd, 0, SEEK_SET) != 0) return LastError("rewind");
  char buffer[32768];
  off_t at = 0;
  while (true) {
    const ssize_t n = pread(from_fd, buffer, sizeof buffer, at);
    if (n < 0) return LastError("read the layer's record");
    if (n == 0) return OkStatus();
    at += n;
    PULGA_RETURN_IF_ERROR(WriteAll(to_fd, {buffer, static_cast<size_t>(n)}));
  }
}

// A member came twice: what the first one held is in the blob alone, and goes into the record.
Result<TreeTotals> RecordAgain(const UnpackOrder& request, int input_fd,
                               const std::set<std::string>& lost, const LayerTarget& target) {
  struct stat st = {};
  if (fstat(target.record_fd, &st) != 0) return LastError("stat the layer's record");
  RecordReader first(target.record_fd, 0, static_cast<uint64_t>(st.st_size));
  PULGA_ASSIGN_OR_RETURN(const Compression kind, CompressionOf(request, input_fd));
  FileRange file(input_fd, request.offset, request.size);
  const auto plain = MakeDecompressor(kind, file);
  RecordWriter second(target.spare_file.get());
  ByteSource& tar = plain != nullptr ? *plain : static_cast<ByteSource&>(file);
  PULGA_RETURN_IF_ERROR(RewriteRecord(first, tar, lost, second));
  PULGA_ASSIGN_OR_RETURN(const TreeTotals totals, RecordTree(target.tree_fd(), second));
  PULGA_RETURN_IF_ERROR(second.Finish());
  PULGA_RETURN_IF_ERROR(CopyOver(target.spare_file.get(), target.record_fd));
  return totals;
}

}  // namespace

Status RunUnpackLayer(const UnpackOrder& request, int input_fd, int channel_fd,
                      LayerTarget target) {
  PULGA_ASSIGN_OR_RETURN(const Compression kind, CompressionOf(request, input_fd));
  FileRange file(input_fd, request.offset, request.size);
  Meter blob(file, AlgorithmOf(request.blob_digest), UINT64_MAX);
  const auto plain = MakeDecompressor(kind, blob);
  ByteSource& tar_bytes = plain != nullptr ? *plain : static_cast<ByteSource&>(blob);
  const std::string diff_id = request.diff_id.empty() ? "" : "sha256:" + request.diff_id;
  Meter raw(tar_bytes, AlgorithmOf(diff_id), request.max_stream);

  RecordWriter record(target.record_fd);
  LayerRecorder recorder(raw, record);
  LayerWriter writer({target.root_fd, target.upper_fd, request.max_entries, request.max_bytes,
                      request.reserve_bytes, &recorder, target.ids},
                     std::move(target.times_file));
  if (request.size > 0) {
    PULGA_ASSIGN_OR_RETURN(const auto tar, TarReader::Open(recorder));
    PULGA_RETURN_IF_ERROR(writer.Apply(*tar));
  }
  PULGA_RETURN_IF_ERROR(Drain(recorder));  // padding counts for the diff-id
  PULGA_RETURN_IF_ERROR(Drain(blob));  // and what follows a compressed stream for the blob's digest
  PULGA_RETURN_IF_ERROR(Verify("the layer's content", diff_id, raw));
  PULGA_RETURN_IF_ERROR(Verify("the layer's blob", request.blob_digest, blob));
  recorder.Finish();
  struct stat st = {};
  if (fstat(target.record_fd, &st) != 0) return LastError("stat the layer's record");
  TreeTotals totals;
  if (recorder.lost().empty() || !S_ISREG(st.st_mode)) {
    PULGA_ASSIGN_OR_RETURN(totals, RecordTree(target.tree_fd(), record));
    PULGA_RETURN_IF_ERROR(record.Finish());
  } else {
    PULGA_RETURN_IF_ERROR(record.Finish());
    PULGA_ASSIGN_OR_RETURN(totals, RecordAgain(request, input_fd, recorder.lost(), target));
  }
  LayerResult result = writer.result();
  result.stream_bytes = recorder.stream_bytes();
  result.disk_bytes = totals.disk_bytes;
  return SendEvent(channel_fd, JobEventKind::kLayerResult, result.Encode());
}

}  // namespace pulga
