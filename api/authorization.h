// What an Authorization header proves: the admin key ("Bearer KEY"), or the login of an OpenFaaS
// gateway ("Basic ..."). Compared in constant time. Pure. Source: RFC 6750, RFC 7617.
#pragma once

#include <string_view>

#include "api/http_message.h"
#include "runtime/engine.h"

namespace pulga {

bool HasBearerKey(const HttpRequest& request, std::string_view key);
bool HasBasicLogin(const HttpRequest& request, const BasicLogin& login);

}  // namespace pulga
