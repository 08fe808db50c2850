// How registries ask for credentials: WWW-Authenticate headers, token servers' URLs and answers.
// Text in, structs out. Source: distribution spec, "token authentication"; RFC 9110 section 11.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "images/fetch/registry_login.h"
#include "images/fetch/url.h"

namespace pulga {

struct AuthChallenge {
  enum class Scheme { kBearer, kBasic } scheme = Scheme::kBasic;
  std::string realm;
  std::string service;
  std::string scope;
};

// The best of what one reply asks for: Bearer before Basic. Nothing: no scheme that we know.
std::optional<AuthChallenge> ChooseChallenge(const std::vector<std::string>& header_values);

std::string BasicAuthorization(const RegistryLogin& login);  // "Basic ..."

struct TokenRequest {
  Url url;
  std::string authorization;             // "" without a password
  std::optional<std::string> form_body;  // POST it; else GET
};
// For reading `repository`. kInvalidArgument when the realm is no URL.
Result<TokenRequest> MakeTokenRequest(const AuthChallenge& challenge, const RegistryLogin& login,
                                      const std::string& repository);
// The bearer token of a token server's JSON. kInvalidArgument.
Result<std::string> ParseTokenReply(std::string_view json);

}  // namespace pulga
