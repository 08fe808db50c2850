// Who a request is from, by its Authorization header, and which action of the permission table it
// is. The administrator's two exceptions are DATA/admin.key ("Bearer KEY") and the login of an
// OpenFaaS gateway ("Basic ..."); everything else is an API key. All compared in constant time; no
// disk, no database. Loop thread. Source: RFC 6750, RFC 7617; docs/accounts.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api/http_message.h"
#include "runtime/engine.h"

namespace pulga {

// Nothing: a stranger.
std::optional<Identity> HolderOfKey(const HttpRequest& request, Engine& engine);
// Also by the login, as below /system.
std::optional<Identity> HolderOfKeyOrLogin(const HttpRequest& request, Engine& engine);

// The one path under /v1 that asks for no key: it gives one.
inline constexpr std::string_view kSignInPath = "/v1/sign-in";

// Of a path below /v1 or /system, known or not, and of /metrics; raw, as routes are matched.
Action ActionOf(std::string_view method, std::string_view path);
// Whether a route may look at the request at all. Functions and what belongs to them are the
// administrator's; which user an account's route is about, that route looks at itself.
bool MayAsk(const Identity& who, Action action);
// Why not, for people.
std::string RefusalText(const Identity& who, Action action);

}  // namespace pulga
