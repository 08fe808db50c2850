#include "runtime/accounts/account.h"

#include <algorithm>

#include "sandbox/access_spec.h"

namespace pulga {
namespace {

struct NamedRole {
  std::string_view name;
  Role role;
};
constexpr NamedRole kRoles[] = {{"administrator", Role::kAdministrator},
                                {"standard", Role::kStandard},
                                {"limited", Role::kLimited}};

struct NamedScope {
  std::string_view name;
  Scope scope;
};
constexpr NamedScope kScopes[] = {
    {"sign-in", Scope::kSignIn}, {"invoke", Scope::kInvoke}, {"deploy", Scope::kDeploy}};

constexpr size_t kIdDigits = 16;
constexpr size_t kSecretDigits = 64;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::string_view RoleName(Role role) {
  for (const NamedRole& known : kRoles) {
    if (known.role == role) return known.name;
  }
  return "";
}

std::optional<Role> ParseRole(std::string_view name) {
  for (const NamedRole& known : kRoles) {
    if (known.name == name) return known.role;
  }
  return std::nullopt;
}

std::vector<std::string_view> ScopeNames(Scopes scopes) {
  std::vector<std::string_view> names;
  for (const NamedScope& known : kScopes) {
    if ((scopes & static_cast<Scopes>(known.scope)) != 0) names.push_back(known.name);
  }
  return names;
}

std::optional<Scope> ParseScope(std::string_view name) {
  for (const NamedScope& known : kScopes) {
    if (known.name == name) return known.scope;
  }
  return std::nullopt;
}

Status CheckUserName(std::string_view name) {
  if (IsPlainName(name)) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"};
}

Status CheckKeyLabel(std::string_view label) {
  if (label.size() > kMaxKeyLabelBytes) {
    return Error{Code::kInvalidArgument, 0,
                 "label: " + std::to_string(kMaxKeyLabelBytes) + " bytes at most"};
  }
  const bool controls = std::any_of(label.begin(), label.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (!controls) return OkStatus();
  return Error{Code::kInvalidArgument, 0, "label: no control characters"};
}

std::optional<KeyText> ParseKeyText(std::string_view text) {
  if (!text.starts_with(kKeyPrefix)) return std::nullopt;
  text.remove_prefix(kKeyPrefix.size());
  if (text.size() != kIdDigits + 1 + kSecretDigits || text[kIdDigits] != '_') return std::nullopt;
  const KeyText key{text.substr(0, kIdDigits), text.substr(kIdDigits + 1)};
  if (!IsHex(key.id) || !IsHex(key.secret)) return std::nullopt;
  return key;
}

}  // namespace pulga
