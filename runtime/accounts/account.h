// Users and their API keys, as the store keeps them and the API shows them. Of a key only the
// SHA-256 of its secret half is kept: 256 random bits need no slow hash. Pure.
// Source: docs/accounts.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

inline constexpr size_t kMaxUsers = 500;
inline constexpr size_t kMaxKeysPerUser = 20;
inline constexpr size_t kMaxSessionsPerUser = 10;  // then the oldest goes
inline constexpr size_t kMaxKeyLabelBytes = 100;

enum class Role : uint8_t { kAdministrator, kStandard, kLimited };
enum class UserState : uint8_t { kActive, kDisabled };

struct User {
  std::string name;
  Role role = Role::kLimited;
  UserState state = UserState::kActive;
  int64_t created_unix_ms = 0;
  std::string password_hash;  // "": has none
};

// What a key may be used for; a bit each.
enum class Scope : uint8_t { kSignIn = 1, kDeploy = 2, kInvoke = 4 };
using Scopes = uint8_t;
inline constexpr Scopes kAllScopes = 7;

struct ApiKey {
  enum class Kind : uint8_t { kLasting, kSession };  // kSession: of a sign-in
  std::string id;                                    // public
  std::string user;                                  // whose it is
  std::string label;
  Scopes scopes = 0;
  std::string secret_sha256;  // 64 hex digits
  int64_t created_unix_ms = 0;
  int64_t expires_unix_ms = 0;    // 0: never
  int64_t last_used_unix_ms = 0;  // 0: not yet
  Kind kind = Kind::kLasting;
};

std::string_view RoleName(Role role);  // "administrator"
std::optional<Role> ParseRole(std::string_view name);
std::vector<std::string_view> ScopeNames(Scopes scopes);
std::optional<Scope> ParseScope(std::string_view name);  // "sign-in"

// kInvalidArgument with the rule: as functions are called, since a user's name is part of URLs.
Status CheckUserName(std::string_view name);
// Text for people, UTF-8 without control characters; empty is none.
Status CheckKeyLabel(std::string_view label);

// The text of a key is pulga_ID_SECRET: 16 and 64 hex digits.
struct KeyText {
  std::string_view id;
  std::string_view secret;
};
inline constexpr std::string_view kKeyPrefix = "pulga_";
std::optional<KeyText> ParseKeyText(std::string_view text);

}  // namespace pulga
