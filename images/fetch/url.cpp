#include "images/fetch/url.h"

#include "base/text.h"

namespace pulga {
namespace {

Error Bad(std::string_view text, std::string_view why) {
  // Without its query, which may be a signature.
  return {Code::kInvalidArgument, 0,
          "'" + Printable(text.substr(0, text.find('?')), 200) +
              "' is no URL to fetch from: " + std::string(why)};
}

bool IsHostByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

bool IsHost(std::string_view host) {
  if (host.size() > 255) return false;
  if (host.starts_with('[')) {
    if (!host.ends_with(']') || host.size() < 4) return false;
    host = host.substr(1, host.size() - 2);
    return host.find_first_not_of("0123456789abcdef:.") == std::string_view::npos;
  }
  if (host.empty() || host.front() == '.' || host.front() == '-') return false;
  for (const char c : host) {
    if (!IsHostByte(c)) return false;
  }
  return true;
}

uint16_t DefaultPort(std::string_view scheme) { return scheme == "https" ? 443 : 80; }

}  // namespace

std::string Url::HostPort() const {
  return port == DefaultPort(scheme) ? host : host + ":" + std::to_string(port);
}

std::string Url::ToString() const { return scheme + "://" + HostPort() + target; }

Result<Url> ParseUrl(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return Bad(text, "it is too long");
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f ||
        c == '\\') {
      return Bad(text, "it holds bytes that no URL has");
    }
  }
  Url url;
  const size_t colon = text.find("://");
  if (colon == std::string_view::npos) return Bad(text, "it has no scheme");
  url.scheme = ToLower(text.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") return Bad(text, "only http and https are");
  text.remove_prefix(colon + 3);
  const size_t end = std::min(text.find_first_of("/?#"), text.size());
  std::string authority = ToLower(text.substr(0, end));
  if (authority.find('@') != std::string::npos) return Bad("", "it names a user");
  url.port = DefaultPort(url.scheme);
  const size_t port_at = authority.rfind(':');
  if (port_at != std::string::npos && authority.find(']', port_at) == std::string::npos) {
    const auto port = ParseUint(std::string_view(authority).substr(port_at + 1), 65535);
    if (!port || *port == 0) return Bad(text, "its port is none");
    url.port = static_cast<uint16_t>(*port);
    authority.resize(port_at);
  }
  if (!IsHost(authority)) return Bad(text, "its host is none");
  url.host = std::move(authority);
  std::string_view target = text.substr(end);
  target = target.substr(0, target.find('#'));
  url.target = target.starts_with('/') ? std::string(target) : "/" + std::string(target);
  return url;
}

Result<Url> ResolveUrl(const Url& base, std::string_view location) {
  const size_t scheme_end = location.find("://");
  if (scheme_end != std::string_view::npos && scheme_end < location.find_first_of("/?#")) {
    return ParseUrl(location);
  }
  if (location.starts_with("//")) return ParseUrl(base.scheme + ":" + std::string(location));
  const std::string origin = base.scheme + "://" + base.HostPort();
  if (location.starts_with('/')) return ParseUrl(origin + std::string(location));
  const std::string path = base.target.substr(0, base.target.find('?'));
  if (location.starts_with('?')) return ParseUrl(origin + path + std::string(location));
  return ParseUrl(origin + path.substr(0, path.rfind('/') + 1) + std::string(location));
}

std::string QueryPair(std::string_view name, std::string_view value) {
  const auto escape = [](std::string_view text) {
    std::string out;
    for (const char c : text) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
      if (plain) {
        out += c;
        continue;
      }
      out += '%';
      for (const char digit : HexEncode(std::string_view(&c, 1))) {
        out += static_cast<char>(digit >= 'a' ? digit - 'a' + 'A' : digit);
      }
    }
    return out;
  };
  return escape(name) + "=" + escape(value);
}

}  // namespace pulga
