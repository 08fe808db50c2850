// http and https URLs, strictly: what is not clearly one of them is refused. Pure.
// No user names, no fragments, no control bytes; hosts are names, IPv4 or [IPv6]. Source: RFC 3986.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; [v6] with its brackets
  uint16_t port = 0;   // never 0 once parsed
  std::string target;  // path and query, begins with '/'

  std::string ToString() const;
  std::string HostPort() const;  // "host", or "host:port" unless it is the scheme's own
  bool SameOrigin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
};

inline constexpr size_t kMaxUrlBytes = 16 * 1024;  // signed links of blob stores are long

// kInvalidArgument.
Result<Url> ParseUrl(std::string_view text);
// A Location header as seen from `base`.
Result<Url> ResolveUrl(const Url& base, std::string_view location);
// "name=value", both escaped for a query.
std::string QueryPair(std::string_view name, std::string_view value);

}  // namespace pulga
