// Small text helpers, all byte-wise and locale-free.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pulga {

std::string HexEncode(std::string_view bytes);               // lower case
std::optional<std::string> HexDecode(std::string_view hex);  // lower case only
std::vector<std::string_view> Split(std::string_view text, char separator);
std::string Join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view Trim(std::string_view text);  // spaces and tabs
std::string ToLower(std::string_view text);
bool EqualsIgnoreCase(std::string_view a, std::string_view b);
std::string Base64Encode(std::string_view bytes);  // with padding
// Padding may be absent; anything else that is not of the alphabet: nothing.
std::optional<std::string> Base64Decode(std::string_view text);
// Decimal digits only, no sign, no spaces, at most `max`.
std::optional<uint64_t> ParseUint(std::string_view digits, uint64_t max = UINT64_MAX);
// For logs and messages: control and non-ASCII bytes as \xNN, cut to `max_bytes` with "...".
std::string Printable(std::string_view bytes, size_t max_bytes = 256);
// \ooo, as the kernel writes blanks in the names of mountinfo(5).
std::string UnescapeOctal(std::string_view text);
// Same bytes, in a time that does not depend on where they differ.
bool EqualsConstantTime(std::string_view a, std::string_view b);

}  // namespace pulga
