// HttpRequest and HttpReply as our handlers see them, and the pure rules about them: what a request
// head may contain, which headers end at this hop, strict percent-decoding.
// Source: RFC 9110, RFC 9112 sections 6.3 and 11; api/README.md (the library).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "runtime/invocation.h"

namespace pulga {

struct HttpRequest {
  std::string method;
  std::string target;          // raw, as in the request line
  std::string version;         // "HTTP/1.1"
  HeaderList headers;          // all of them, in order, as sent
  std::string peer;            // "ip:port", "[ip]:port" or "unix"
  bool from_function = false;  // through the gateway in the router: calls only
  bool chunked = false;
  std::optional<uint64_t> content_length;

  bool has_body() const { return chunked || content_length.value_or(0) > 0; }
  std::string_view path() const;                           // raw, before '?'
  std::string_view query() const;                          // raw, after '?'
  const std::string* Header(std::string_view name) const;  // the first of that name
};

struct HttpReply {
  int status = 200;
  HeaderList headers;          // without framing ones; unfit names or values are dropped
  std::string body;            // used unless `file` or `streamed`
  std::string_view lent_body;  // instead: the handler's, valid as long as that lives
  UniqueFd file;               // a regular file, sent from its start
  uint64_t file_size = 0;
  // Not empty: status 101, and from its head on OnBody and Read carry the bytes of that protocol.
  std::string upgrade;
  bool streamed = false;                // pulled from HttpHandler::Read
  std::optional<uint64_t> stream_size;  // nothing: chunked
  bool close = false;                   // the connection ends after this reply

  std::string_view text() const { return lent_body.empty() ? body : lent_body; }
};

struct HeadProblem {
  int status = 400;
  std::string text;
};
// Everything the library below us lets through and a proxy must not:
// both framings at once, repeated or odd Content-Length, unknown Transfer-Encoding, bad names,
// control bytes, odd targets and methods.
std::optional<HeadProblem> CheckHead(const HttpRequest& request);

// Without hop-by-hop and framing headers and without those that Connection names.
HeaderList EndToEndHeaders(HeaderList headers);
// The protocol that a request without a body asks to switch to, if it may: not to another HTTP, in
// which no request after the first would be seen here. Nothing: answer as if it had not asked.
std::optional<std::string> RequestedUpgrade(const HttpRequest& request);
// A header that may be sent to the caller: a token, no control bytes, not about framing.
bool IsFitReplyHeader(std::string_view name, std::string_view value);
bool IsToken(std::string_view text);

// A path under /v1?
bool IsManagementPath(std::string_view path);
// The X-Call-Id of the request, if it is one we take, else a new one.
std::string CallIdOf(const HttpRequest& request);

// Decodes once. Nothing for a broken escape, a control byte or invalid UTF-8 in the result.
std::optional<std::string> PercentDecode(std::string_view text);
// The decoded value of the last `name=` in a raw query; nothing when absent or broken.
std::optional<std::string> QueryValue(std::string_view query, std::string_view name);
// True when an Accept header names the media type.
bool Accepts(const HttpRequest& request, std::string_view media_type);

std::string_view ReasonPhrase(int status);

}  // namespace pulga
