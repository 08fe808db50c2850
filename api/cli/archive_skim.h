// What of a plain tar file need not be sent: members whose name tells the SHA-256 of a layer the
// daemon has. Reads headers only, seeks over contents. Knows few kinds of headers and no more: what
// is unusual is no error, the file then goes as a whole.
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

// The blobs worth leaving out, in the file's order; nothing when anything in it is unusual.
std::optional<std::vector<NamedBlob>> FindBlobs(int fd, uint64_t file_size);

// The rest of the file without those whose digest is in `known`.
std::vector<FileRange> LeaveOut(const std::vector<NamedBlob>& blobs,
                                const std::set<std::string>& known, uint64_t file_size);

}  // namespace pulga::cli
