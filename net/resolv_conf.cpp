#include "net/resolv_conf.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/file_io.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr uint16_t kDnsPort = 53;

bool ParseAddress(std::string_view text, Resolver& out) {
  const size_t percent = text.find('%');
  const std::string host(text.substr(0, percent));
  sockaddr_in v4 = {};
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(kDnsPort);
    memcpy(&out.address, &v4, sizeof v4);
    out.size = sizeof v4;
    return true;
  }
  sockaddr_in6 v6 = {};
  if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) return false;
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(kDnsPort);
  if (percent != std::string_view::npos) {
    v6.sin6_scope_id = if_nametoindex(std::string(text.substr(percent + 1)).c_str());
  }
  memcpy(&out.address, &v6, sizeof v6);
  out.size = sizeof v6;
  return true;
}

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

std::vector<Resolver> ParseResolvConf(std::string_view text) {
  constexpr std::string_view kKeyword = "nameserver";
  std::vector<Resolver> out;
  for (std::string_view line : Split(text, '\n')) {
    line = Trim(line);
    if (line.substr(0, kKeyword.size()) != kKeyword) continue;
    line.remove_prefix(kKeyword.size());
    if (line.empty() || (line[0] != ' ' && line[0] != '\t')) continue;
    line = Trim(line);
    line = line.substr(0, std::min(line.find_first_of(" \t\r#;"), line.size()));
    Resolver resolver;
    if (out.size() < kMaxResolvers && ParseAddress(line, resolver)) out.push_back(resolver);
  }
  return out;
}

const std::vector<Resolver>& ResolvConf::Current() {
  struct stat now = {};
  if (stat(path_.c_str(), &now) != 0) {
    resolvers_.clear();
    seen_ = {};
    return resolvers_;
  }
  if (SameFile(now, seen_)) return resolvers_;
  const auto text = ReadFile(path_, 64 * 1024);
  resolvers_ = text.ok() ? ParseResolvConf(*text) : std::vector<Resolver>{};
  seen_ = now;
  return resolvers_;
}

}  // namespace pulga
