// Which proxy a URL is fetched through, by the daemon's settings. Pure.
// `no_proxy` as curl and Go read it: "*", host names with everything below them, addresses,
// IPv4 networks ("10.0.0.0/8"); each with ":port" or without.
#pragma once

#include <string>

#include "images/fetch/url.h"

namespace pulga {

struct ProxySettings {
  std::string https_proxy;  // for https URLs; may hold user:password@
  std::string http_proxy;   // for http URLs
  std::string no_proxy;
};

std::string ProxyFor(const ProxySettings& settings, const Url& url);  // "" = none

}  // namespace pulga
