// Credentials for registries in the form of Docker's config.json. Pure. What is in here is never
// logged and never part of an error.
// Source: docker login's config.json, "auths"; helper programs are not run.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

// What the administrator or the caller gave for one registry; empty fields are not given.
struct RegistryLogin {
  std::string username;
  std::string password;
  std::string identity_token;  // an OAuth2 refresh token
  std::string registry_token;  // a ready bearer token

  bool empty() const {
    return username.empty() && password.empty() && identity_token.empty() && registry_token.empty();
  }
};

class RegistryLogins {
 public:
  // {"auths": {"HOST[:PORT]": {"auth": base64 of "user:password"}}}; "username" and "password",
  // "identitytoken", "registrytoken" too. kInvalidArgument says where, never what.
  static Result<RegistryLogins> Parse(std::string_view config_json);
  // Of the registry that serves names of `domain` ("docker.io", "localhost:5000"); may be empty.
  RegistryLogin Find(std::string_view domain) const;
  // kInvalidArgument when a helper program (credHelpers, credsStore) has what is not in the file.
  Status CheckReadable(std::string_view domain) const;

 private:
  std::map<std::string, RegistryLogin> logins_;              // by domain
  std::map<std::string, std::string, std::less<>> helpers_;  // by domain
};

// One entry alone: base64 of "user:password".
Result<RegistryLogin> ParseBasicAuth(std::string_view base64);

}  // namespace pulga
