#include "api/authorization.h"

#include <algorithm>
#include <initializer_list>

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

bool HasBasicLogin(const HttpRequest& request, const BasicLogin& login) {
  const auto given = Base64Decode(CredentialsOf(request, "Basic"));
  // One without a password opens nothing.
  if (!given || login.user.empty() || login.password.empty()) return false;
  return EqualsConstantTime(*given, login.user + ":" + login.password);
}

Identity Administrator() { return {kDefaultOwner, Role::kAdministrator, kAllScopes}; }

// "/v1/users" and "/v1/users/a", not "/v1/usersx".
bool IsAt(std::string_view path, std::string_view root) {
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

bool IsAtOneOf(std::string_view path, std::initializer_list<std::string_view> roots) {
  return std::any_of(roots.begin(), roots.end(),
                     [&](std::string_view root) { return IsAt(path, root); });
}

// "/v1/functions" and "/v1/functions/f": what a function is. Beyond that are its logs.
bool IsPartOfFunction(std::string_view path) {
  constexpr std::string_view kRoot = "/v1/functions/";
  return path.starts_with(kRoot) && path.find('/', kRoot.size()) != std::string_view::npos;
}

Action AccountAction(std::string_view method, std::string_view path) {
  const bool reads = method == "GET" || method == "HEAD";
  const bool password = path.ends_with("/password") && path != "/v1/users/password";
  if (IsAt(path, "/v1/users") && password && method == "PUT") return Action::kUseAccount;
  if (IsAt(path, "/v1/users")) return reads ? Action::kUseAccount : Action::kAdminister;
  return method == "POST" ? Action::kMakeKeys : Action::kUseAccount;
}

}  // namespace

std::optional<Identity> HolderOfKey(const HttpRequest& request, Engine& engine) {
  const std::string_view given = CredentialsOf(request, "Bearer");
  if (given.empty()) return std::nullopt;
  if (EqualsConstantTime(given, engine.admin_key())) return Administrator();
  return engine.accounts().Identify(given);
}

std::optional<Identity> HolderOfKeyOrLogin(const HttpRequest& request, Engine& engine) {
  if (HasBasicLogin(request, engine.gateway_login())) return Administrator();
  return HolderOfKey(request, engine);
}

Action ActionOf(std::string_view method, std::string_view path) {
  const bool reads = method == "GET" || method == "HEAD";
  if (IsAtOneOf(path, {"/v1/users", "/v1/keys"})) return AccountAction(method, path);
  if (IsAtOneOf(path, {"/v1/system", "/system/info", "/metrics"})) {
    return reads ? Action::kSeeBoard : Action::kAdminister;
  }
  if (IsPartOfFunction(path)) return Action::kDeploy;
  if (IsAtOneOf(path, {"/v1/functions", "/v1/images", "/v1/volumes", "/system/functions",
                       "/system/function", "/system/namespaces", "/system/namespace"})) {
    return reads ? Action::kSeeFunctions : Action::kDeploy;
  }
  if (IsAtOneOf(path, {"/v1/uploads", "/v1/secrets", "/v1/tasks", "/system/secrets", "/system/logs",
                       "/system/scale-function", "/system/alert"})) {
    return Action::kDeploy;
  }
  return Action::kAdminister;
}

bool MayAsk(const Identity& who, Action action) {
  const bool account = action == Action::kUseAccount || action == Action::kMakeKeys;
  return Permits(who, action, account ? Ownership::kOwn : Ownership::kOthers);
}

std::string RefusalText(const Identity& who, Action action) {
  const Scopes wanted = ScopesFor(action);
  if ((who.scopes & wanted) != 0) {
    return "user " + who.user + " may not do this: their role is " +
           std::string(RoleName(who.role));
  }
  std::string names;
  for (std::string_view name : ScopeNames(wanted)) {
    names += (names.empty() ? "" : " or ") + std::string(name);
  }
  return "this needs a key with the scope " + names;
}

}  // namespace pulga
