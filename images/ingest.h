// kIngest: an archive while it arrives. Undoes the outer gzip or zstd, writes the plain bytes to
// the spool, and tells each member's name, place and SHA-256 once it is complete. Runs locked in.
// Memory: a few buffers, a decompressor's window (8 MiB at most) and one tar header.
#pragma once

#include "base/result.h"
#include "images/unpack_wire.h"

namespace pulga {

// Reads `input_fd` to its end: the pipe of an upload, or a file from its position on. request:
// max_bytes of plain bytes, max_entries members. kUnsupported for what is no tar, gzip or zstd;
// kTooLarge past a limit. A stream that ends between two members is a complete one: whether the
// client said so is for the importer to know.
Status RunIngest(const UnpackOrder& request, int input_fd, int output_fd, int channel_fd);

}  // namespace pulga
