#include "images/fetch/auth_challenge.h"

#include "base/text.h"
#include "images/json.h"

namespace pulga {
namespace {

constexpr size_t kMaxChallengeBytes = 8 * 1024;
constexpr size_t kMaxTokenBytes = 24 * 1024;

bool IsTokenByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

// Walks `scheme key=value, key="value", scheme ...`, the one header whose commas mean two things.
class ChallengeReader {
 public:
  explicit ChallengeReader(std::string_view text) : rest_(text.substr(0, kMaxChallengeBytes)) {}

  std::vector<AuthChallenge> Read() {
    std::vector<AuthChallenge> out;
    while (!Skip()) {
      const std::string word = Word();
      if (word.empty()) break;
      if (!rest_.starts_with('=')) {
        known_ = EqualsIgnoreCase(word, "Bearer") || EqualsIgnoreCase(word, "Basic");
        if (!known_) continue;
        out.emplace_back();
        out.back().scheme = EqualsIgnoreCase(word, "Bearer") ? AuthChallenge::Scheme::kBearer
                                                             : AuthChallenge::Scheme::kBasic;
        continue;
      }
      rest_.remove_prefix(1);
      const std::string value = rest_.starts_with('"') ? Quoted() : Word();
      if (!known_ || out.empty()) continue;
      if (EqualsIgnoreCase(word, "realm")) out.back().realm = value;
      if (EqualsIgnoreCase(word, "service")) out.back().service = value;
      if (EqualsIgnoreCase(word, "scope")) out.back().scope = value;
    }
    return out;
  }

 private:
  // True at the end.
  bool Skip() {
    while (!rest_.empty() &&
           (rest_.front() == ' ' || rest_.front() == ',' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
    return rest_.empty();
  }
  std::string Word() {
    size_t n = 0;
    while (n < rest_.size() && IsTokenByte(rest_[n])) ++n;
    std::string out(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return out;
  }
  std::string Quoted() {
    std::string out;
    size_t i = 1;
    for (; i < rest_.size() && rest_[i] != '"'; ++i) {
      if (rest_[i] == '\\' && i + 1 < rest_.size()) ++i;
      out += rest_[i];
    }
    rest_.remove_prefix(std::min(i + 1, rest_.size()));
    return out;
  }

  std::string_view rest_;
  bool known_ = false;
};

}  // namespace

std::optional<AuthChallenge> ChooseChallenge(const std::vector<std::string>& header_values) {
  std::optional<AuthChallenge> best;
  for (const std::string& value : header_values) {
    for (const AuthChallenge& one : ChallengeReader(value).Read()) {
      const bool bearer = one.scheme == AuthChallenge::Scheme::kBearer && !one.realm.empty();
      if (bearer) return one;
      if (!best && one.scheme == AuthChallenge::Scheme::kBasic) best = one;
    }
  }
  return best;
}

std::string BasicAuthorization(const RegistryLogin& login) {
  return "Basic " + Base64Encode(login.username + ":" + login.password);
}

Result<TokenRequest> MakeTokenRequest(const AuthChallenge& challenge, const RegistryLogin& login,
                                      const std::string& repository) {
  TokenRequest out;
  auto url = ParseUrl(challenge.realm);
  if (!url.ok()) return Prefix("the registry's token server", url.error());
  out.url = std::move(*url);
  // What the registry names may be wider or empty; reading this repository is all we want.
  const std::string scope = "repository:" + repository + ":pull";
  std::string query = QueryPair("scope", scope);
  if (!challenge.service.empty()) query = QueryPair("service", challenge.service) + "&" + query;
  if (!login.identity_token.empty()) {
    out.form_body = "grant_type=refresh_token&client_id=pulga&" + query + "&" +
                    QueryPair("refresh_token", login.identity_token);
    return out;
  }
  if (!login.username.empty()) {
    query += "&" + QueryPair("account", login.username);
    out.authorization = BasicAuthorization(login);
  }
  out.url.target += (out.url.target.find('?') == std::string::npos ? "?" : "&") + query;
  return out;
}

Result<std::string> ParseTokenReply(std::string_view json) {
  PULGA_ASSIGN_OR_RETURN(const JsonDocument document,
                         JsonDocument::Parse("the token server's answer", json));
  std::string token = document.root().Get("token").AsString().value_or("");
  if (token.empty()) token = document.root().Get("access_token").AsString().value_or("");
  bool fit = !token.empty() && token.size() <= kMaxTokenBytes;
  for (const char c : token) fit = fit && c > 0x20 && c < 0x7f;
  if (fit) return token;
  return Error{Code::kInvalidArgument, 0, "the token server's answer holds no usable token"};
}

}  // namespace pulga
