// Secrets as the API and the sandbox see them: their names, their bounds, and what is told of one
// (never its value). Pure.
// Source: docs/secrets.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "runtime/function_spec.h"

namespace pulga {

inline constexpr size_t kMaxSecrets = 1000;  // of all owners

struct SecretView {
  FunctionKey key;  // names are shared with nobody but their owner and namespace, as functions'
  uint64_t bytes = 0;
  int64_t created_unix_ms = 0;
  int64_t changed_unix_ms = 0;
  std::vector<std::string> used_by;  // functions
};

enum class SecretRemoval { kUnused, kForced };
enum class SecretWrite { kCreate, kReplace, kEither };
struct SecretPut {
  enum class Effect { kCreated, kReplaced } effect = Effect::kCreated;
  SecretView secret;
};

// Of all secrets of one function: kInvalidArgument over kMaxSecretBytesPerVersion.
Status CheckSecretBytes(uint64_t bytes);

// kInvalidArgument: "directory traversal found in name", or the rule that it breaks.
Status CheckSecretName(std::string_view name);

}  // namespace pulga
