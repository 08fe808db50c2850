// What a secret is to a sandbox: a file of a bounded size under a name that is no path. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pulga {

inline constexpr size_t kMaxSecretBytes = 1 << 20;
inline constexpr size_t kMaxSecretName = 253;
inline constexpr size_t kMaxSecretsPerVersion = 64;
inline constexpr size_t kMaxSecretBytesPerVersion = 8 << 20;  // of all of them
// Where functions find them; kSecretsAlias, where other engines put them, leads there.
inline constexpr const char* kSecretsDirectory = "/var/openfaas/secrets";
inline constexpr const char* kSecretsAlias = "/run/secrets";

struct SecretFile {
  std::string name;
  std::string value;  // as bytes
};

// a-z A-Z 0-9 . - _, at most kMaxSecretName of them, the first one no dot, and never "..".
constexpr bool IsSecretName(std::string_view name) {
  if (name.empty() || name.size() > kMaxSecretName || name[0] == '.') return false;
  char before = 0;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_';
    if (!plain && (c != '.' || before == '.')) return false;
    before = c;
  }
  return true;
}

}  // namespace pulga
