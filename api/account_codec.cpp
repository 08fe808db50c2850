#include "api/account_codec.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "api/json_codec.h"
#include "base/text.h"
#include "base/units.h"
#include "runtime/spec_json.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBodyBytes = 4096;

std::string DumpLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json TimeOrNull(int64_t unix_ms) { return unix_ms == 0 ? Json() : Json(Rfc3339(unix_ms)); }

Json ToJson(const User& user) {
  return {{"name", user.name},
          {"role", RoleName(user.role)},
          {"disabled", user.state == UserState::kDisabled},
          {"created_at", Rfc3339(user.created_unix_ms)}};
}

Json ToJson(const ApiKey& key) {
  return {{"id", key.id},
          {"user", key.user},
          {"label", key.label},
          {"scopes", ScopeNames(key.scopes)},
          {"created_at", Rfc3339(key.created_unix_ms)},
          {"expires_at", TimeOrNull(key.expires_unix_ms)},
          {"last_used_at", TimeOrNull(key.last_used_unix_ms)}};
}

Error BadBody(std::string message) { return Error{Code::kInvalidArgument, 0, std::move(message)}; }

using Names = std::initializer_list<std::string_view>;

// An object that has no field but these.
Result<Json> ParseFields(std::string_view text, Names known) {
  PULGA_RETURN_IF_ERROR(CheckSpecDocument(text, kMaxBodyBytes));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return BadBody("a JSON object is expected");
  for (const auto& [name, value] : json.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return BadBody(Printable(name, 40) + ": unknown field");
    }
  }
  return json;
}

// `absent` where there is no such field.
Result<std::string> TextField(const Json& json, const char* name, std::string absent = "") {
  const auto field = json.find(name);
  if (field == json.end()) return absent;
  if (!field->is_string()) return BadBody(std::string(name) + ": a text is expected");
  return field->get<std::string>();
}

Result<Role> RoleField(const Json& json) {
  PULGA_ASSIGN_OR_RETURN(const std::string text, TextField(json, "role"));
  const auto role = ParseRole(text);
  if (!role) return BadBody("role: \"administrator\", \"standard\" or \"limited\" is expected");
  return *role;
}

Result<Scopes> ScopesField(const Json& json) {
  const Error expected =
      BadBody("scopes: a list of \"sign-in\", \"invoke\" and \"deploy\" is expected");
  const auto field = json.find("scopes");
  if (field == json.end() || !field->is_array() || field->empty()) return expected;
  Scopes scopes = 0;
  for (const Json& name : *field) {
    const auto scope = name.is_string() ? ParseScope(name.get<std::string>()) : std::nullopt;
    if (!scope) return expected;
    scopes = static_cast<Scopes>(scopes | static_cast<Scopes>(*scope));
  }
  return scopes;
}

}  // namespace

std::string UserJson(const User& user) { return DumpLine(ToJson(user)); }

std::string UserListJson(const std::vector<User>& users) {
  Json list = Json::array();
  for (const User& user : users) list.push_back(ToJson(user));
  return DumpLine({{"users", std::move(list)}});
}

std::string KeyListJson(const std::vector<ApiKey>& keys) {
  Json list = Json::array();
  for (const ApiKey& key : keys) list.push_back(ToJson(key));
  return DumpLine({{"keys", std::move(list)}});
}

std::string NewKeyJson(const NewKey& made) {
  Json json = ToJson(made.key);
  json["key"] = made.text;
  return DumpLine(json);
}

Result<User> ParseNewUserBody(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseFields(text, {"name", "role"}));
  User user;
  PULGA_ASSIGN_OR_RETURN(user.name, TextField(json, "name"));
  PULGA_ASSIGN_OR_RETURN(user.role, RoleField(json));
  PULGA_RETURN_IF_ERROR(CheckUserName(user.name));
  return user;
}

Result<UserChange> ParseUserChangeBody(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseFields(text, {"role", "disabled"}));
  if (json.empty()) return BadBody("\"role\" or \"disabled\" is expected");
  UserChange change;
  if (json.contains("role")) {
    PULGA_ASSIGN_OR_RETURN(change.role, RoleField(json));
  }
  if (const auto disabled = json.find("disabled"); disabled != json.end()) {
    if (!disabled->is_boolean()) return BadBody("disabled: true or false is expected");
    change.state = disabled->get<bool>() ? UserState::kDisabled : UserState::kActive;
  }
  return change;
}

Result<KeyOrder> ParseKeyOrderBody(std::string_view text, const std::string& asker) {
  PULGA_ASSIGN_OR_RETURN(const Json json,
                         ParseFields(text, {"user", "label", "scopes", "expires_in"}));
  KeyOrder order;
  PULGA_ASSIGN_OR_RETURN(order.user, TextField(json, "user", asker));
  PULGA_ASSIGN_OR_RETURN(order.label, TextField(json, "label"));
  PULGA_ASSIGN_OR_RETURN(order.scopes, ScopesField(json));
  if (json.contains("expires_in")) {
    PULGA_ASSIGN_OR_RETURN(const std::string wish, TextField(json, "expires_in"));
    const auto lifetime = ParseDuration(wish);
    if (!lifetime.ok()) return Prefix("expires_in", lifetime.error());
    if (*lifetime < std::chrono::seconds(1)) return BadBody("expires_in: a second at least");
    order.lifetime = *lifetime;
  }
  PULGA_RETURN_IF_ERROR(CheckUserName(order.user));
  PULGA_RETURN_IF_ERROR(CheckKeyLabel(order.label));
  return order;
}

Result<SignInAttempt> ParseSignInBody(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseFields(text, {"name", "password"}));
  SignInAttempt attempt;
  PULGA_ASSIGN_OR_RETURN(attempt.user, TextField(json, "name"));
  PULGA_ASSIGN_OR_RETURN(attempt.password, TextField(json, "password"));
  PULGA_RETURN_IF_ERROR(CheckUserName(attempt.user));
  return attempt;
}

Result<PasswordChange> ParsePasswordBody(std::string_view text) {
  PULGA_ASSIGN_OR_RETURN(const Json json, ParseFields(text, {"password", "current"}));
  PasswordChange change;
  PULGA_ASSIGN_OR_RETURN(change.password, TextField(json, "password"));
  PULGA_ASSIGN_OR_RETURN(change.current, TextField(json, "current"));
  return change;
}

}  // namespace pulga
