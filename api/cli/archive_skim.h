// How a plain tar file is best sent: without the layers the daemon has, told by members whose name
// is a SHA-256; its documents first and then the layers from the base up, so that the daemon
// unpacks one while the next arrives. Reads headers and small documents, seeks over contents. Knows
// few kinds of headers and no more: what is unusual is no error, the file then goes as it is.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "api/cli/http_client.h"

namespace pulga::cli {

struct NamedBlob {
  std::string digest;  // 64 hex digits, as the name tells: nobody has looked at the content
  FileRange range;     // with its headers and padding
};

struct ArchiveOutline {
  std::vector<NamedBlob> blobs;      // those worth leaving out, in the file's order
  std::vector<FileRange> documents;  // contents of what may be JSON, the most telling first
  uint64_t end = 0;                  // where the marks of its end begin
};

// Nothing when anything in the file is unusual.
std::optional<ArchiveOutline> SkimArchive(int fd, uint64_t file_size);

// The blobs in the order in which the documents first name them, then the others.
void SortAsNamed(int fd, ArchiveOutline* outline);

// The file with its blobs last, in their order, without those whose digest is in `known`.
std::vector<FileRange> RangesToSend(const ArchiveOutline& outline,
                                    const std::set<std::string>& known, uint64_t file_size);

}  // namespace pulga::cli
