// The JSON of users and API keys under /v1. Unknown fields are refused, so that nobody sets what
// they did not mean to. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/accounts/sign_in.h"

namespace pulga {

std::string UserJson(const User& user);  // a line, as all of these
std::string UserListJson(const std::vector<User>& users);
std::string KeyListJson(const std::vector<ApiKey>& keys);
std::string NewKeyJson(const NewKey& made);  // the only place where a key's text goes out

// {"name": "ada", "role": "standard"}
Result<User> ParseNewUserBody(std::string_view text);
// {"role": "limited"}, {"disabled": true} or both
Result<UserChange> ParseUserChangeBody(std::string_view text);
// {"user": "ada", "label": "ci", "scopes": ["deploy"], "expires_in": "720h"}; all but the scopes
// may be absent, and then the key is `asker`'s.
Result<KeyOrder> ParseKeyOrderBody(std::string_view text, const std::string& asker);

// {"name": "ada", "password": "..."}
Result<SignInAttempt> ParseSignInBody(std::string_view text);
struct PasswordChange {
  std::string password;
  std::string current;  // the one before; "" where it was not given
};
// {"password": "...", "current": "..."}
Result<PasswordChange> ParsePasswordBody(std::string_view text);

}  // namespace pulga
