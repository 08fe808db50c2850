// The one JSON codec of FunctionSpec: for the API, `deploy -f` and the rows of the state store.
// Reading is strict: unknown and repeated fields, wrong types, deep or huge documents are refused
// with a message that names the field ("limits.memory: ..."). Null equals absent. Pure.
// Source: docs/api.md, "Function spec".
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "runtime/function_spec.h"

namespace pulga {

inline constexpr size_t kMaxSpecBytes = 256 * 1024;

// Is it one JSON object, neither deep nor huge, with no field given twice? All that can not be told
// any more of what a lenient parser made of it.
Status CheckSpecDocument(std::string_view text, size_t max_bytes = kMaxSpecBytes);
// kInvalidArgument or kTooLarge. What is absent keeps its default. Does not Validate().
Result<FunctionSpec> SpecFromJson(std::string_view text);
// Every field, quantities as people write them ("64Mi"); reading it back gives the same spec.
std::string SpecToJson(const FunctionSpec& spec);

}  // namespace pulga
