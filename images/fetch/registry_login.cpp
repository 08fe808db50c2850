#include "images/fetch/registry_login.h"

#include "base/text.h"
#include "images/json.h"

namespace pulga {
namespace {

constexpr std::string_view kHub = "docker.io";
constexpr size_t kMaxSecretBytes = 8 * 1024;

// "https://index.docker.io/v1/" and "registry.example:5000/path" name registries, too.
std::string DomainOf(std::string_view key) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
  }
  std::string host = ToLower(key.substr(0, key.find('/')));
  if (host == "index.docker.io" || host == "registry-1.docker.io") host = kHub;
  return host;
}

bool IsFit(const std::string& text) {
  if (text.size() > kMaxSecretBytes) return false;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return true;
}

// Some are whole JSON documents with their line ends; they travel in base64.
bool IsPassword(const std::string& text) {
  return text.size() <= kMaxSecretBytes && text.find('\0') == std::string::npos;
}

Result<RegistryLogin> ReadEntry(const std::string& key, JsonValue entry) {
  const Error bad = {Code::kInvalidArgument, 0,
                     "credentials for " + Printable(key, 100) +
                         ": \"auth\" must be base64 of "
                         "\"user:password\""};
  if (!entry.IsObject()) return bad;
  RegistryLogin login;
  const std::string auth = entry.Get("auth").AsString().value_or("");
  if (!auth.empty()) {
    auto basic = ParseBasicAuth(auth);
    if (!basic.ok()) return bad;
    login = std::move(*basic);
  }
  const auto take = [&entry](const char* name, std::string* out) {
    const auto text = entry.Get(name).AsString();
    if (text && !text->empty()) *out = *text;
  };
  take("username", &login.username);
  take("password", &login.password);
  take("identitytoken", &login.identity_token);
  take("registrytoken", &login.registry_token);
  for (const std::string* text : {&login.username, &login.identity_token, &login.registry_token}) {
    if (!IsFit(*text)) return bad;
  }
  if (!IsPassword(login.password)) return bad;
  return login;
}

}  // namespace

Result<RegistryLogin> ParseBasicAuth(std::string_view base64) {
  auto text = Base64Decode(Trim(base64));
  const size_t colon = text ? text->find(':') : std::string::npos;
  if (colon == std::string::npos || colon == 0 || !IsFit(text->substr(0, colon)) ||
      !IsPassword(text->substr(colon + 1))) {
    return Error{Code::kInvalidArgument, 0, "\"auth\" must be base64 of \"user:password\""};
  }
  RegistryLogin login;
  login.username = text->substr(0, colon);
  login.password = text->substr(colon + 1);
  return login;
}

Result<RegistryLogins> RegistryLogins::Parse(std::string_view config_json) {
  auto document = JsonDocument::Parse("credentials", config_json);
  if (!document.ok()) return document.error();
  const JsonValue auths = document->root().Get("auths");
  if (!document->root().IsObject() || (!auths.IsNull() && !auths.IsObject())) {
    return Error{Code::kInvalidArgument, 0, "credentials: {\"auths\": {...}} is expected"};
  }
  RegistryLogins out;
  Status failed;
  const std::string store = document->root().Get("credsStore").AsString().value_or("");
  auths.ForEach([&](const std::string& key, JsonValue value) {
    auto login = ReadEntry(key, value);
    if (!login.ok()) {
      failed = login.error();
      return;
    }
    // `docker login` with a helper program leaves an empty entry.
    if (!login->empty()) {
      out.logins_[DomainOf(key)] = std::move(*login);
    } else if (!store.empty()) {
      out.helpers_[DomainOf(key)] = store;
    }
  });
  document->root().Get("credHelpers").ForEach([&](const std::string& key, JsonValue value) {
    out.helpers_[DomainOf(key)] = value.AsString().value_or("");
  });
  PULGA_RETURN_IF_ERROR(failed);
  return out;
}

Status RegistryLogins::CheckReadable(std::string_view domain) const {
  const auto helper = helpers_.find(DomainOf(domain));
  if (helper == helpers_.end() || logins_.contains(helper->first)) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "credentials for " + Printable(helper->first, 100) +
                   " are kept by docker-credential-" + Printable(helper->second, 100) +
                   ", and no program is run to get at them: write them into \"auths\", or send "
                   "them with the pull"};
}

RegistryLogin RegistryLogins::Find(std::string_view domain) const {
  const auto it = logins_.find(DomainOf(domain));
  return it == logins_.end() ? RegistryLogin{} : it->second;
}

}  // namespace pulga
