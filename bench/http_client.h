// A keep-alive HTTP/1.1 connection that only wants to know when a reply is complete. Understands
// Content-Length and chunked replies; anything else is an error. Not for untrusted servers.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga::bench {

// GET, or POST with so many bytes of body. The whole should fit a socket's buffer.
std::string Request(const std::string& path, size_t body_bytes);

class HttpConnection {
 public:
  static Result<HttpConnection> Connect(uint16_t port);  // 127.0.0.1

  int fd() const { return fd_.get(); }
  Status Send(const std::string& request);
  // Reads once; true when the reply is complete. Blocking unless the fd was made non-blocking.
  Result<bool> ReadSome();
  // Send, then ReadSome until complete.
  Status Exchange(const std::string& request);
  Status Get(const std::string& path) { return Exchange(Request(path, 0)); }
  // Microseconds (CLOCK_MONOTONIC) at which the first byte of the last reply's body arrived.
  double first_byte() const { return first_byte_; }
  int status() const { return status_; }

 private:
  explicit HttpConnection(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<bool> Parse();
  UniqueFd fd_;
  std::string in_;
  double first_byte_ = 0;
  int status_ = 0;
};

}  // namespace pulga::bench
