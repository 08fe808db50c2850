#include "images/json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace pulga {

struct JsonDocument::Tree {
  nlohmann::json value;
};

namespace {

using Json = nlohmann::json;

const Json& Node(const void* node) {
  static const Json null;
  return node != nullptr ? *static_cast<const Json*>(node) : null;
}

Error Bad(std::string_view what, std::string_view why) {
  return {Code::kInvalidArgument, 0, std::string(what) + ": " + std::string(why)};
}

// Depth and number of values before anything is built from them.
Status CheckShape(std::string_view what, std::string_view text) {
  size_t depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\0') return Bad(what, "it holds a NUL");  // where the parser would stop reading
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return Bad(what, "nested too deep");
      ++values;
    } else if (c == ']' || c == '}') {
      if (depth > 0) --depth;
    } else if (c == ',') {
      ++values;
    }
    if (values > kMaxJsonValues) {
      return Error{Code::kTooLarge, 0, std::string(what) + ": too many values"};
    }
  }
  return OkStatus();
}

}  // namespace

bool JsonValue::IsNull() const { return Node(node_).is_null(); }
bool JsonValue::IsObject() const { return Node(node_).is_object(); }
bool JsonValue::IsArray() const { return Node(node_).is_array(); }

std::optional<std::string> JsonValue::AsString() const {
  const auto* text = Node(node_).get_ptr<const Json::string_t*>();
  if (text == nullptr) return std::nullopt;
  return *text;
}

std::optional<uint64_t> JsonValue::AsUint() const {
  const Json& node = Node(node_);
  if (!node.is_number_unsigned()) return std::nullopt;
  return *node.get_ptr<const Json::number_unsigned_t*>();
}

JsonValue JsonValue::Get(std::string_view key) const {
  const auto* object = Node(node_).get_ptr<const Json::object_t*>();
  if (object == nullptr) return JsonValue();
  const auto it = object->find(std::string(key));
  return it == object->end() ? JsonValue() : JsonValue(&it->second);
}

size_t JsonValue::size() const {
  const Json& node = Node(node_);
  return node.is_array() || node.is_object() ? node.size() : 0;
}

JsonValue JsonValue::At(size_t index) const {
  const auto* array = Node(node_).get_ptr<const Json::array_t*>();
  return array != nullptr && index < array->size() ? JsonValue(&(*array)[index]) : JsonValue();
}

void JsonValue::ForEach(
    const std::function<void(const std::string& key, JsonValue value)>& each) const {
  const auto* object = Node(node_).get_ptr<const Json::object_t*>();
  if (object == nullptr) return;
  for (const auto& [key, value] : *object) each(key, JsonValue(&value));
}

JsonDocument::JsonDocument(std::unique_ptr<Tree> tree) : tree_(std::move(tree)) {}
JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument& JsonDocument::operator=(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

Result<JsonDocument> JsonDocument::Parse(std::string_view what, std::string_view text) {
  PULGA_RETURN_IF_ERROR(CheckShape(what, text));
  if (text.starts_with("\xef\xbb\xbf")) return Bad(what, "it begins with a byte order mark");
  std::vector<std::set<std::string>> keys;  // of the objects being read
  bool duplicate = false;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(*parsed.get_ptr<Json::string_t*>()).second) {
      duplicate = true;
    }
    return true;
  };
  auto tree = std::make_unique<Tree>();
  tree->value = Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (tree->value.is_discarded()) return Bad(what, "not valid JSON");
  if (duplicate) return Bad(what, "an object names one key twice");
  return JsonDocument(std::move(tree));
}

JsonValue JsonDocument::root() const { return JsonValue(&tree_->value); }

}  // namespace pulga
