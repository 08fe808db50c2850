// JsonObject: a JSON object as lenient clients send it, read field by field. Unknown fields are
// ignored, null equals absent, and the first field of a wrong type is remembered: read all of them,
// then ask status(). Bounded by CheckSpecDocument (runtime/spec_json.h). Pure.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "runtime/spec_json.h"

namespace pulga {

class JsonObject {
 public:
  // kInvalidArgument: no JSON, no object, nested too deeply, a field twice. Nothing: an empty one.
  static Result<JsonObject> Parse(std::string_view text, size_t max_bytes = kMaxSpecBytes);
  ~JsonObject();
  JsonObject(JsonObject&&) noexcept;
  JsonObject& operator=(JsonObject&&) noexcept;

  bool Has(std::string_view field) const;  // and is not null
  std::string Text(std::string_view field) const;
  bool Flag(std::string_view field) const;
  std::optional<uint64_t> Number(std::string_view field) const;  // a whole one, not below 0
  std::vector<std::string> Texts(std::string_view field) const;
  // Values that are numbers or flags come as text, as Go's YAML makes them.
  std::map<std::string, std::string> TextMap(std::string_view field) const;

  // kInvalidArgument with the first field that was read and had another type.
  const Status& status() const { return status_; }

 private:
  struct Document;
  explicit JsonObject(std::unique_ptr<Document> document);
  void Mistyped(std::string_view field, const char* wanted) const;

  std::unique_ptr<Document> document_;
  mutable Status status_;
};

}  // namespace pulga
