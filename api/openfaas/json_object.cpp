#include "api/openfaas/json_object.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"

namespace pulga {

using Json = nlohmann::json;

struct JsonObject::Document {
  Json json;
  // The field's value, unless it is absent or null.
  const Json* Find(std::string_view field) const {
    const auto it = json.find(field);
    return it == json.end() || it->is_null() ? nullptr : &*it;
  }
};

JsonObject::JsonObject(std::unique_ptr<Document> document) : document_(std::move(document)) {}
JsonObject::~JsonObject() = default;
JsonObject::JsonObject(JsonObject&&) noexcept = default;
JsonObject& JsonObject::operator=(JsonObject&&) noexcept = default;

Result<JsonObject> JsonObject::Parse(std::string_view text, size_t max_bytes) {
  auto document = std::make_unique<Document>();
  document->json = Json::object();
  if (Trim(text).empty()) return JsonObject(std::move(document));
  PULGA_RETURN_IF_ERROR(CheckSpecDocument(text, max_bytes));
  document->json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return JsonObject(std::move(document));
}

void JsonObject::Mistyped(std::string_view field, const char* wanted) const {
  if (!status_.ok()) return;
  status_ = Error{Code::kInvalidArgument, 0, std::string(field) + ": " + wanted + " is expected"};
}

bool JsonObject::Has(std::string_view field) const { return document_->Find(field) != nullptr; }

std::string JsonObject::Text(std::string_view field) const {
  const Json* value = document_->Find(field);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  Mistyped(field, "a string");
  return "";
}

bool JsonObject::Flag(std::string_view field) const {
  const Json* value = document_->Find(field);
  if (value == nullptr) return false;
  if (value->is_boolean()) return value->get<bool>();
  Mistyped(field, "true or false");
  return false;
}

std::optional<uint64_t> JsonObject::Number(std::string_view field) const {
  const Json* value = document_->Find(field);
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  Mistyped(field, "a whole number, not below 0,");
  return std::nullopt;
}

std::vector<std::string> JsonObject::Texts(std::string_view field) const {
  std::vector<std::string> texts;
  const Json* value = document_->Find(field);
  if (value == nullptr) return texts;
  bool fits = value->is_array();
  for (size_t i = 0; fits && i < value->size(); ++i) {
    fits = (*value)[i].is_string();
    if (fits) texts.push_back((*value)[i].get<std::string>());
  }
  if (!fits) Mistyped(field, "a list of strings");
  return texts;
}

std::map<std::string, std::string> JsonObject::TextMap(std::string_view field) const {
  std::map<std::string, std::string> texts;
  const Json* value = document_->Find(field);
  if (value == nullptr) return texts;
  bool fits = value->is_object();
  if (fits) {
    for (const auto& [name, text] : value->items()) {
      fits = fits && text.is_primitive();
      if (!fits) break;
      // As decoders in Go read null.
      texts[name] = text.is_string() ? text.get<std::string>() : text.is_null() ? "" : text.dump();
    }
  }
  if (!fits) Mistyped(field, "an object of strings");
  return texts;
}

}  // namespace pulga
