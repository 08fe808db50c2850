// Strict parsing of what a function's own HTTP server answers. Everything here is untrusted:
// headers come out checked and free of framing and hop-by-hop fields, or the response is refused.
// Pure: no I/O, no allocation beyond the headers it returns.
// Source: RFC 9112 (sections 2-7), RFC 9110 (7.6.1); docs/security.md, case A35.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/invocation.h"

namespace pulga {

inline constexpr size_t kMaxResponseHeadBytes = 64 * 1024;
inline constexpr size_t kMaxResponseHeaders = 200;
inline constexpr size_t kMaxTrailerBytes = 16 * 1024;
inline constexpr size_t kMaxChunkLineBytes = 4 * 1024;

enum class BodyFraming : uint8_t { kNone, kLength, kChunked, kUntilClose };
enum class AfterResponse : uint8_t { kKeepAlive, kClose };
// kUpgrade: whatever the method, it asked for another protocol.
enum class RequestMethod : uint8_t { kOther, kHead, kUpgrade };
enum class ParseState : uint8_t { kIncomplete, kComplete, kBad };

struct UpstreamHead {
  int status = 0;       // 100 to 599; 101 with kUpgrade only, and then the last one
  HeaderList headers;   // end-to-end ones; none of ours can be forged
  std::string upgrade;  // 101: the protocol it switches to
  BodyFraming framing = BodyFraming::kNone;
  // kLength: the body's size. For HEAD, 204 and 304: what was announced, for the record.
  std::optional<uint64_t> content_length;
  AfterResponse after = AfterResponse::kKeepAlive;
};

struct HeadParse {
  ParseState state = ParseState::kIncomplete;
  size_t size = 0;           // kComplete: bytes of the head, its empty line included
  const char* problem = "";  // kBad: what is wrong with it
};

// `bytes` starts at the status line. `seen` = how many of them an earlier call already had, so that
// a slow head is not searched again and again.
HeadParse ParseResponseHead(std::string_view bytes, size_t seen, RequestMethod method,
                            UpstreamHead* head);

// Takes the chunked framing out of a stream, in place. Trailers are checked for size and dropped.
class ChunkedDecoder {
 public:
  struct Step {
    ParseState state = ParseState::kIncomplete;
    size_t consumed = 0;  // of `size`; all of it unless kComplete or kBad
    size_t produced = 0;  // decoded bytes, moved to the front of `data`
  };
  Step Decode(char* data, size_t size);

 private:
  enum class At : uint8_t {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerStart,
    kTrailer,
    kTrailerLf,
    kEndLf
  };
  // One framing byte; false = malformed.
  bool Take(char c);
  bool TakeSizeDigit(char c);

  At at_ = At::kSize;
  uint64_t left_ = 0;  // of this chunk
  uint32_t digits_ = 0;
  size_t line_bytes_ = 0;
  size_t trailer_bytes_ = 0;
  bool done_ = false;
};

// Shared with the request side: a field name, and a value free of controls.
bool IsHeaderName(std::string_view name);
bool IsHeaderValue(std::string_view value);
// A Content-Length into `length`; null, or what is wrong: no number, or another than one before.
const char* NoteContentLength(std::string_view value, std::optional<uint64_t>* length);
// Connection, Keep-Alive, Transfer-Encoding, ... and Content-Length, which is rebuilt.
bool IsHopByHop(std::string_view name);
// Names the front sets itself; a function must not be able to forge a receipt.
bool IsOurs(std::string_view name);

}  // namespace pulga
