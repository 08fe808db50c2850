// The board's resolvers: reads the nameserver lines of resolv.conf, and again whenever the file
// changes. Any thread; reads a small file, at most once per change. Source: resolv.conf(5).
#pragma once

#include <sys/socket.h>
#include <sys/stat.h>

#include <string>
#include <string_view>
#include <vector>

namespace pulga {

inline constexpr size_t kMaxResolvers = 3;

struct Resolver {
  sockaddr_storage address = {};
  socklen_t size = 0;
};

// IPv4 and IPv6, with scope ("fe80::1%eth0") too; what can not be read is skipped.
std::vector<Resolver> ParseResolvConf(std::string_view text);

class ResolvConf {
 public:
  explicit ResolvConf(std::string path) : path_(std::move(path)) {}
  // Empty when there is no such file or no nameserver in it.
  const std::vector<Resolver>& Current();

 private:
  const std::string path_;
  struct stat seen_ = {};
  std::vector<Resolver> resolvers_;
};

}  // namespace pulga
