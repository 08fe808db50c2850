// HTTP exchanges one layer above libcurl: several at once, each telling a receiver what comes.
// Follows no redirect, adds no credentials, retries nothing: exchange.h decides those things.
// One thread. Receivers outlive their exchange; OnHead and OnBytes must not start anything.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "images/fetch/net_address.h"
#include "images/fetch/url.h"

namespace pulga {

// What is sent: `size` bytes of an open file from `offset` on.
struct FileBody {
  int fd = -1;
  uint64_t offset = 0;
  uint64_t size = 0;
};

struct HttpOrder {
  Url url;
  std::vector<std::string> headers;      // "Name: value"
  std::optional<std::string> form_body;  // POSTed as a form; else GET
  std::optional<FileBody> file_body;     // POSTed as it is, with the type that `headers` say
  Reach reach;
  Duration time_limit{0};  // of all of it; 0: none
};

struct HttpHead {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case

  const std::string* Find(std::string_view name) const;
  std::vector<std::string> All(std::string_view name) const;
};

struct HttpEnd {
  enum class Kind {
    kComplete,
    kStopped,      // the receiver said so
    kUnreachable,  // no name, no route, nobody there
    kUntrusted,    // TLS: its certificate, or no common protocol
    kForbidden,    // an address it must not lead to
    kBroken,       // cut, damaged, or silent for too long
  } kind = Kind::kComplete;
  std::string text;                        // for people
  AddressKind peer = AddressKind::kNever;  // whom it reached
};

class HttpReceiver {
 public:
  virtual ~HttpReceiver() = default;
  virtual bool OnHead(const HttpHead& head) = 0;     // false ends it
  virtual bool OnBytes(std::string_view bytes) = 0;  // false ends it
  virtual void OnEnd(const HttpEnd& end) = 0;        // once; may start others
};

class HttpTransport {
 public:
  virtual ~HttpTransport() = default;
  virtual void Start(const HttpOrder& order, HttpReceiver& receiver) = 0;
  // Works until something happened or `most` is over. An error: whoever wanted all this is gone.
  virtual Status Wait(Duration most) = 0;
};

}  // namespace pulga
