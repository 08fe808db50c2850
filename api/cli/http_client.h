// A small HTTP/1.1 client: one request per connection, blocking, both directions at once, so that a
// reply that comes before the upload's end is seen and heard. TCP and unix sockets.
// Blocks until the reply ends; no time limit of its own. Errors name the address and errno.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/invocation.h"

namespace pulga::cli {

struct DaemonUrl {
  std::string host;  // "127.0.0.1"
  std::string port = "8080";
  std::string unix_path;  // not empty: a unix socket
  std::string base;       // what a function's URL begins with, for people
  int cancel_fd = -1;     // readable: give the exchange up; not owned
};
// "http://HOST[:PORT]" or "unix:/path".
Result<DaemonUrl> ParseDaemonUrl(const std::string& text);

struct FileRange {
  uint64_t offset = 0;
  uint64_t size = 0;
};

struct ClientRequest {
  std::string method = "GET";
  std::string target = "/";
  HeaderList headers;
  std::string body;                                // used unless body_fd is set
  int body_fd = -1;                                // read to its end; not owned
  std::optional<uint64_t> body_size;               // of body_fd; nothing: chunked
  std::vector<FileRange> body_ranges;              // of body_fd, none empty, body_size together
  std::function<void(uint64_t sent)> on_progress;  // may be empty; what the peer has confirmed
  int stall_seconds =
      0;  // a connection that moves nothing of the body for so long is lost; 0: ever
};

struct ClientReply {
  int status = 0;
  HeaderList headers;
  HeaderList trailers;
  std::string body;       // empty when a sink took it
  bool complete = false;  // false: it broke off after the head

  // Of the trailers, else of the headers; "" when absent.
  std::string Header(std::string_view name) const;
};

// Gets the body piece by piece, after the head is known; a failure ends the exchange.
using BodySink = std::function<Status(const ClientReply& head, std::string_view bytes)>;

Result<ClientReply> Exchange(const DaemonUrl& url, const ClientRequest& request,
                             const BodySink& sink = {});

Result<UniqueFd> Connect(const DaemonUrl& url);
// Only "can it be reached": connects and closes.
Status CheckReachable(const DaemonUrl& url);

}  // namespace pulga::cli
