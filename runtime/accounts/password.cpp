#include "runtime/accounts/password.h"

// libxcrypt and not OpenSSL, behind whose EVP all its algorithms stand (docs/linking.md).
#include <crypt.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/ids.h"
#include "base/text.h"

namespace pulga {
namespace {

// "$7$", N = 2^14 as one digit, r = 8 and p = 5 as five digits each, in crypt(5)'s base 64.
constexpr const char* kParameters = "$7$C6....3....";

// A shorter name is in many a good password by chance.
constexpr size_t kTellingNameBytes = 3;

// Empty: it cannot be had.
std::string Hash(std::string_view password, const std::string& setting) {
  const std::string text(password);
  const auto data = std::make_unique<crypt_data>();
  const char* hash = crypt_rn(text.c_str(), setting.c_str(), data.get(), sizeof(crypt_data));
  return hash == nullptr ? "" : hash;
}

}  // namespace

Status CheckPassword(std::string_view password, std::string_view user) {
  if (password.size() < kMinPasswordBytes || password.size() > kMaxPasswordBytes) {
    return Error{Code::kInvalidArgument, 0,
                 "password: " + std::to_string(kMinPasswordBytes) + " to " +
                     std::to_string(kMaxPasswordBytes) + " bytes"};
  }
  if (password.find('\0') != std::string_view::npos) {
    return Error{Code::kInvalidArgument, 0, "password: no NUL"};
  }
  const bool monotone = password.find_first_not_of(password[0]) == std::string_view::npos;
  const bool names_user =
      user.size() >= kTellingNameBytes && ToLower(password).find(user) != std::string::npos;
  if (monotone || names_user) {
    return Error{Code::kInvalidArgument, 0,
                 "password: not one character alone, and without the user's name in it"};
  }
  return OkStatus();
}

Result<std::string> HashPassword(std::string_view password) {
  std::string hash = Hash(password, kParameters + RandomHex(16));
  if (hash.empty()) return Error{Code::kNoSpace, errno, "there is no memory to hash a password"};
  return hash;
}

bool MatchesPassword(std::string_view password, const std::string& hash) {
  if (password.size() > kMaxPasswordBytes || password.find('\0') != std::string_view::npos) {
    return false;
  }
  const std::string own = Hash(password, hash);
  return !own.empty() && EqualsConstantTime(own, hash);
}

const std::string& HashOfNobody() {
  // Of no password that anybody knows: the 43 digits behind the salt are made up.
  static const std::string hash = kParameters + RandomHex(16) + "$" + std::string(43, '.');
  return hash;
}

}  // namespace pulga
