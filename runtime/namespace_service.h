// NamespaceService: the rows of namespaces mirrored in memory, and written by the storage thread.
// Loop thread.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/work_queue.h"
#include "runtime/function_registry.h"
#include "runtime/namespaces.h"
#include "runtime/secrets/secret_service.h"
#include "runtime/state_store.h"

namespace pulga {

// What the daemon built; all of it outlives the service.
struct NamespaceParts {
  WorkQueue& storage;
  StateStore& store;  // used on `storage` only
  const FunctionRegistry& registry;
  const SecretService& secrets;
};

class NamespaceService final : public Namespaces {
 public:
  explicit NamespaceService(NamespaceParts parts) : parts_(parts) {}
  void Load(const std::vector<NamespaceRecord>& records);

  std::vector<NamespaceRecord> List() const override;
  Result<NamespaceRecord> Find(const std::string& name) const override;
  void Put(NamespaceRecord record, Write write, std::function<void(Status)> done) override;
  void Remove(const std::string& name, std::function<void(Status)> done) override;

 private:
  std::map<std::string, NamespaceRecord> All() const;  // those without a row, too
  Status Check(const NamespaceRecord& record, Write write) const;

  NamespaceParts parts_;
  std::map<std::string, NamespaceRecord> rows_;
  std::set<std::string> creating_;  // on their way to the disk
};

}  // namespace pulga
