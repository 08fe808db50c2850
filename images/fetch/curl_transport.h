// HttpTransport over libcurl's multi interface: the only user of curl.h. HTTP/1.1, so that memory
// is a fixed number of small buffers; http and https alone; certificates are always verified.
// Nothing of the environment (proxies, .netrc) is read.
// Blocks in Wait only. Needs: CA certificates in one PEM file.
#pragma once

#include <memory>
#include <string>

#include "images/fetch/http_transport.h"
#include "images/fetch/proxy_choice.h"

namespace pulga {

struct CurlOptions {
  ProxySettings proxies;
  std::string ca_file;
  Duration connect_timeout = std::chrono::seconds(10);
  Duration stall_timeout = std::chrono::seconds(30);
  // Whoever reads its other end wants what is fetched; Wait fails once that is closed. -1: none.
  int channel_fd = -1;
};

class CurlTransport final : public HttpTransport {
 public:
  static Result<std::unique_ptr<CurlTransport>> Create(CurlOptions options);
  ~CurlTransport() override;
  void Start(const HttpOrder& order, HttpReceiver& receiver) override;
  Status Wait(Duration most) override;

 private:
  struct Transfer;
  class Impl;
  explicit CurlTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace pulga
