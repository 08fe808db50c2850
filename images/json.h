// Reading JSON documents that came from outside: bounded in bytes, depth and number of values,
// strict where parsers differ (duplicate keys, byte order marks). A JsonValue points into its
// document. The only place in images/ that touches the JSON library; it never throws at its users.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

class JsonValue {
 public:
  JsonValue() = default;  // null
  explicit JsonValue(const void* node) : node_(node) {}

  bool IsNull() const;
  bool IsObject() const;
  bool IsArray() const;
  std::optional<std::string> AsString() const;
  std::optional<uint64_t> AsUint() const;  // whole, not negative
  // Null when absent or when this is no object.
  JsonValue Get(std::string_view key) const;
  // Of an array or object, 0 otherwise.
  size_t size() const;
  JsonValue At(size_t index) const;  // of an array
  void ForEach(const std::function<void(const std::string& key, JsonValue value)>& each) const;

 private:
  const void* node_ = nullptr;
};

class JsonDocument {
 public:
  // `what` names the document in errors. kTooLarge or kInvalidArgument.
  static Result<JsonDocument> Parse(std::string_view what, std::string_view text);
  JsonDocument(JsonDocument&&) noexcept;
  JsonDocument& operator=(JsonDocument&&) noexcept;
  ~JsonDocument();
  JsonValue root() const;

 private:
  struct Tree;
  explicit JsonDocument(std::unique_ptr<Tree> tree);
  std::unique_ptr<Tree> tree_;
};

inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonValues = 50'000;

}  // namespace pulga
