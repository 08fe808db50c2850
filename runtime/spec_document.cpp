// CheckSpecDocument of spec_json.h: what has to be told of a document before it is read field by
// field.
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/text.h"
#include "base/units.h"
#include "runtime/spec_json.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 8;

// Watches a parse for what the parser itself would let pass: repeated keys and deep nesting.
class StrictWatch {
 public:
  bool OnEvent(int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) problem_ = "nested too deeply";
    if (event == Json::parse_event_t::object_start) open_.emplace_back();
    if (event == Json::parse_event_t::object_end && !open_.empty()) open_.pop_back();
    if (event == Json::parse_event_t::key && !open_.empty() &&
        !open_.back().insert(parsed.get<std::string>()).second && problem_.empty()) {
      problem_ = "the field \"" + Printable(parsed.get<std::string>(), 40) + "\" is given twice";
    }
    return problem_.empty();
  }
  const std::string& problem() const { return problem_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::string problem_;
};

}  // namespace

Status CheckSpecDocument(std::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) {
    return Error{Code::kTooLarge, 0, "the document is larger than " + FormatBytes(max_bytes)};
  }
  StrictWatch watch;
  const Json json = Json::parse(
      text,
      [&watch](int depth, Json::parse_event_t event, Json& parsed) {
        return watch.OnEvent(depth, event, parsed);
      },
      /*allow_exceptions=*/false);
  if (!watch.problem().empty()) return Error{Code::kInvalidArgument, 0, watch.problem()};
  if (json.is_discarded()) return Error{Code::kInvalidArgument, 0, "this is not valid JSON"};
  if (!json.is_object()) return Error{Code::kInvalidArgument, 0, "a JSON object is expected"};
  return OkStatus();
}

}  // namespace pulga
