// FunctionRegistry: the functions' rows mirrored in memory. Versions are immutable; which one is
// active changes only after the row did. Loop thread, never blocks.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/function_spec.h"
#include "runtime/version.h"

namespace pulga {

struct FunctionEntry {
  VersionPtr active;
  std::vector<VersionPtr> versions;  // highest number first, the active one included
  std::string trouble;               // why it can not be called; empty normally
};

class FunctionRegistry {
 public:
  const FunctionEntry* Find(const FunctionKey& key) const;
  const std::map<FunctionKey, FunctionEntry>& functions() const { return functions_; }

  void Load(const FunctionKey& key, FunctionEntry entry);
  // `version` becomes active; one of the same number is replaced, those in `forgotten` go.
  void Activate(const VersionPtr& version, const std::vector<uint64_t>& forgotten);
  void SetTrouble(const FunctionKey& key, std::string trouble);
  void Erase(const FunctionKey& key);

  // The version a rollback goes to: `number`, or the one before the active one.
  // kNotFound, or kInvalidArgument when that one is active already.
  Result<VersionPtr> RollbackTarget(const FunctionKey& key, std::optional<uint32_t> number) const;

  // An image may not go while a stored version, or one being deployed or drained, needs it.
  void Reserve(const std::string& digest) { reserved_.insert(digest); }
  void Release(const std::string& digest);
  // "function hello (version 3)", or "" when nobody uses it.
  std::string UserOf(const std::string& image_digest) const;
  // Names of the functions whose active version has this volume or data set.
  std::vector<std::string> UsersOfVolume(const FunctionKey& volume) const;
  std::vector<std::string> UsersOfSecret(const FunctionKey& secret) const;

 private:
  std::map<FunctionKey, FunctionEntry> functions_;
  std::multiset<std::string> reserved_;
};

}  // namespace pulga
