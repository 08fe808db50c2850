#include "api/cli/reply_json.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/output.h"
#include "base/text.h"

namespace pulga::cli {

using Json = nlohmann::json;

const Json& Field(const Json& object, const char* name) {
  static const Json kNothing;
  if (!object.is_object()) return kNothing;
  const auto it = object.find(name);
  return it == object.end() ? kNothing : *it;
}

Json ParseReply(std::string_view text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string TextIn(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  return value.is_string() ? value.get<std::string>() : "";
}

uint64_t NumberIn(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
}

Json ListIn(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  return value.is_array() ? value : Json::array();
}

std::string UsedBy(const Json& object) {
  std::vector<std::string> names;
  for (const Json& name : ListIn(object, "used_by")) {
    if (name.is_string()) names.push_back(name.get<std::string>());
  }
  return names.empty() ? "-" : Join(names, ", ");
}

void PrintWarnings(const Json& object) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  for (const Json& warning : ListIn(object, "warnings")) {
    if (!warning.is_string()) continue;
    PrintErr(style.Paint(Colour::kYellow, "warning: ") + warning.get<std::string>() + "\n");
  }
}

}  // namespace pulga::cli
