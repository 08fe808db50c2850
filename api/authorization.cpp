#include "api/authorization.h"

#include "base/text.h"

namespace pulga {
namespace {

// What follows the scheme; empty: another scheme, or nothing at all.
std::string_view CredentialsOf(const HttpRequest& request, std::string_view scheme) {
  const std::string* given = request.Header("Authorization");
  if (given == nullptr) return {};
  const std::string_view text(*given);
  if (text.size() <= scheme.size() || text[scheme.size()] != ' ') return {};
  if (!EqualsIgnoreCase(text.substr(0, scheme.size()), scheme)) return {};
  return Trim(text.substr(scheme.size() + 1));
}

}  // namespace

bool HasBearerKey(const HttpRequest& request, std::string_view key) {
  const std::string_view given = CredentialsOf(request, "Bearer");
  return !given.empty() && EqualsConstantTime(given, key);
}

bool HasBasicLogin(const HttpRequest& request, const BasicLogin& login) {
  const auto given = Base64Decode(CredentialsOf(request, "Basic"));
  // One without a password opens nothing.
  if (!given || login.user.empty() || login.password.empty()) return false;
  return EqualsConstantTime(*given, login.user + ":" + login.password);
}

}  // namespace pulga
