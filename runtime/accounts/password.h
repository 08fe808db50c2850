// Passwords, kept as crypt(5) writes them: scrypt with N = 2^14, r = 8, p = 5 (16 MiB of memory, a
// quarter of a second or more on a board) and 16 random bytes of salt, all of which the hash names.
// Hashing blocks for that long: never on the loop. Source: RFC 7914; crypt(5); OWASP's Password
// Storage Cheat Sheet; NIST SP 800-63B, 3.1.1.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

inline constexpr size_t kMinPasswordBytes = 12;
inline constexpr size_t kMaxPasswordBytes = 256;

// kInvalidArgument with the rule: as long as above, no NUL, not one character alone, and
// without the user's name.
Status CheckPassword(std::string_view password, std::string_view user);

// kNoSpace where there is no memory for it.
Result<std::string> HashPassword(std::string_view password);
// False as well for a hash that is none; then in no time.
bool MatchesPassword(std::string_view password, const std::string& hash);
// Of nobody's password: to compare with it takes as long as with any other.
const std::string& HashOfNobody();

}  // namespace pulga
