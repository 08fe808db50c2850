// What commands read out of the daemon's JSON, whose fields may be missing or of another type.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace pulga::cli {

nlohmann::json ParseReply(std::string_view text);  // a discarded value when it is no JSON
// Null when there is no such field.
const nlohmann::json& Field(const nlohmann::json& object, const char* name);
std::string TextIn(const nlohmann::json& object, const char* name);     // "" = no such text
uint64_t NumberIn(const nlohmann::json& object, const char* name);      // 0 = no such number
nlohmann::json ListIn(const nlohmann::json& object, const char* name);  // empty = no such list
std::string UsedBy(const nlohmann::json& object);  // "a, b" of its "used_by", or "-"
void PrintWarnings(const nlohmann::json& object);  // its "warnings", each a line on stderr

}  // namespace pulga::cli
