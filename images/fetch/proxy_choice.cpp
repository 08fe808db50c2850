#include "images/fetch/proxy_choice.h"

#include <arpa/inet.h>

#include <optional>

#include "base/text.h"

namespace pulga {
namespace {

std::optional<uint32_t> Address4(std::string_view text) {
  in_addr address = {};
  if (inet_pton(AF_INET, std::string(text).c_str(), &address) != 1) return std::nullopt;
  return ntohl(address.s_addr);
}

bool InNetwork(std::string_view network, std::string_view host) {
  const size_t slash = network.find('/');
  const auto base = Address4(network.substr(0, slash));
  const auto bits = ParseUint(network.substr(slash + 1), 32);
  const auto address = Address4(host);
  if (!base || !bits || !address) return false;
  return *bits == 0 || (*base ^ *address) >> (32 - *bits) == 0;
}

bool Names(std::string_view entry, const Url& url) {
  if (entry.find('/') != std::string_view::npos) return InNetwork(entry, url.host);
  const size_t colon = entry.rfind(':');
  if (colon != std::string_view::npos && entry.find(']', colon) == std::string_view::npos &&
      entry.find(':') == colon) {
    if (ParseUint(entry.substr(colon + 1), 65535) != url.port) return false;
    entry = entry.substr(0, colon);
  }
  if (entry.starts_with("*.")) entry.remove_prefix(1);
  if (entry.starts_with('.')) entry.remove_prefix(1);
  if (entry.empty()) return false;
  const std::string name = ToLower(entry);
  if (url.host == name || url.host == "[" + name + "]") return true;
  return !Address4(url.host) && url.host.size() > name.size() && url.host.ends_with(name) &&
         url.host[url.host.size() - name.size() - 1] == '.';
}

}  // namespace

std::string ProxyFor(const ProxySettings& settings, const Url& url) {
  for (const std::string_view part : Split(settings.no_proxy, ',')) {
    const std::string_view entry = Trim(part);
    if (entry == "*" || Names(entry, url)) return "";
  }
  return url.scheme == "https" ? settings.https_proxy : settings.http_proxy;
}

}  // namespace pulga
