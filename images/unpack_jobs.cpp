#include "images/unpack_jobs.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/text.h"
#include "images/archive_index.h"
#include "images/byte_source.h"
#include "images/job_events.h"
#include "images/layer_path.h"
#include "images/layer_writer.h"
#include "images/tar_reader.h"

namespace pulga {
namespace {

Result<uint64_t> SizeOf(int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return LastError("stat the input");
  return static_cast<uint64_t>(st.st_size);
}

DigestAlgorithm AlgorithmOf(const std::optional<Digest>& digest) {
  return digest ? digest->algorithm : DigestAlgorithm::kSha256;
}

Status Verify(std::string_view what, const std::string& expected, const Digest& found) {
  if (expected.empty() || expected == found.ToString()) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               std::string(what) + " is " + found.ToString() + ", expected " + expected};
}

std::optional<ArchiveMember> MemberOf(const TarEntry& entry) {
  ArchiveMember member;
  switch (entry.type) {
    case EntryType::kFile:
      member.type = MemberType::kFile;
      break;
    case EntryType::kSymlink:
      member.type = MemberType::kSymlink;
      break;
    case EntryType::kHardLink:
      member.type = MemberType::kHardLink;
      break;
    default:
      return std::nullopt;
  }
  if (entry.sparse || entry.link_target.size() > kMaxMemberNameBytes) return std::nullopt;
  member.size = entry.type == EntryType::kFile ? entry.size : 0;
  member.target = entry.link_target;
  return member;
}

}  // namespace

Status RunDecompress(const UnpackOrder& request, int input_fd, int output_fd) {
  PULGA_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(input_fd));
  PULGA_ASSIGN_OR_RETURN(const Compression kind, SniffCompression(input_fd, 0, size));
  FileRange file(input_fd, 0, size);
  const auto plain = MakeDecompressor(kind, file);
  if (plain == nullptr) return Error{Code::kInvalidArgument, 0, "not compressed"};
  uint64_t total = 0;
  std::string buffer(65536, '\0');
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const size_t n, plain->Read(buffer));
    if (n == 0) return OkStatus();
    total += n;
    if (total > request.max_bytes) {
      return Error{
          Code::kTooLarge, 0,
          "the archive unpacks to more than " + std::to_string(request.max_bytes) + " bytes"};
    }
    PULGA_RETURN_IF_ERROR(WriteAll(output_fd, std::string_view(buffer).substr(0, n)));
  }
}

Status RunScan(const UnpackOrder& request, int input_fd, int output_fd) {
  PULGA_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(input_fd));
  PULGA_ASSIGN_OR_RETURN(const auto tar, TarReader::OpenFile(input_fd, size));
  uint64_t members = 0;
  uint64_t written = 0;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const TarEntry* entry, tar->Next());
    if (entry == nullptr) return OkStatus();
    if (++members > request.max_entries) {
      return Error{Code::kTooLarge, 0,
                   "the archive has more than " + std::to_string(request.max_entries) + " members"};
    }
    auto member = MemberOf(*entry);
    const auto name = CleanPath(entry->name);
    if (!member || !name || name->empty() || name->size() > kMaxMemberNameBytes) continue;
    if (member->type == MemberType::kFile && member->size > 0) {
      PULGA_ASSIGN_OR_RETURN(member->offset, tar->DataOffset());
      if (member->size > size || member->offset > size - member->size) {
        return Error{Code::kInvalidArgument, 0,
                     "the archive is truncated inside " + Printable(*name, 200)};
      }
    }
    const std::string record = EncodeMember(*name, *member);
    written += record.size();
    if (written > request.max_bytes) {
      return Error{Code::kTooLarge, 0, "the archive's member names are too long"};
    }
    PULGA_RETURN_IF_ERROR(WriteAll(output_fd, record));
  }
}

Status RunUnpackLayer(const UnpackOrder& request, int input_fd, int channel_fd,
                      LayerTarget target) {
  PULGA_ASSIGN_OR_RETURN(const Compression kind,
                         SniffCompression(input_fd, request.offset, request.size));
  FileRange file(input_fd, request.offset, request.size);
  Meter blob(file, AlgorithmOf(ParseDigest(request.blob_digest)), UINT64_MAX);
  const auto plain = MakeDecompressor(kind, blob);
  ByteSource& tar_bytes = plain != nullptr ? *plain : static_cast<ByteSource&>(blob);
  Meter raw(tar_bytes, DigestAlgorithm::kSha256, request.max_stream);

  LayerWriter writer({target.root_fd, target.upper_fd, request.max_entries, request.max_bytes},
                     std::move(target.times_file));
  if (request.size > 0) {
    PULGA_ASSIGN_OR_RETURN(const auto tar, TarReader::Open(raw));
    PULGA_RETURN_IF_ERROR(writer.Apply(*tar));
  }
  PULGA_RETURN_IF_ERROR(Drain(raw));   // padding counts for the diff-id
  PULGA_RETURN_IF_ERROR(Drain(blob));  // and what follows a compressed stream for the blob's digest
  PULGA_RETURN_IF_ERROR(Verify("the layer's content", "sha256:" + request.diff_id, raw.Finish()));
  PULGA_RETURN_IF_ERROR(Verify("the layer's blob", request.blob_digest, blob.Finish()));
  return SendEvent(channel_fd, JobEventKind::kLayerResult, writer.result().Encode());
}

}  // namespace pulga
