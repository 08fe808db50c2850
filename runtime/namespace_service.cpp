#include "runtime/namespace_service.h"

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "runtime/function_spec.h"

namespace pulga {
namespace {

constexpr size_t kMostNamespaces = 1000;

Error NoSuch(const std::string& name) {
  return Error{Code::kNotFound, 0, "namespace " + Printable(name, 80) + " not found"};
}

// Of what is kept by FunctionKey.
template <typename Map>
size_t CountIn(const Map& all, const std::string& name_space) {
  return static_cast<size_t>(std::count_if(all.begin(), all.end(), [&](const auto& entry) {
    return entry.first.name_space == name_space;
  }));
}

}  // namespace

void NamespaceService::Load(const std::vector<NamespaceRecord>& records) {
  for (const NamespaceRecord& record : records) rows_[record.name] = record;
}

std::map<std::string, NamespaceRecord> NamespaceService::All() const {
  std::map<std::string, NamespaceRecord> all = rows_;
  const auto add = [&all](const std::string& name) {
    all.try_emplace(name).first->second.name = name;
  };
  add(kDefaultNamespace);
  for (const auto& [key, entry] : parts_.registry.functions()) add(key.name_space);
  for (const auto& [key, secret] : parts_.secrets.secrets()) add(key.name_space);
  return all;
}

std::vector<NamespaceRecord> NamespaceService::List() const {
  std::vector<NamespaceRecord> list;
  for (auto& [name, record] : All()) list.push_back(record);
  return list;
}

Result<NamespaceRecord> NamespaceService::Find(const std::string& name) const {
  const auto all = All();
  const auto it = all.find(name);
  if (it == all.end()) return NoSuch(name);
  return it->second;
}

Status NamespaceService::Check(const NamespaceRecord& record, Write write) const {
  const Status valid = ValidateFunctionName(record.name);
  if (!valid.ok()) return Prefix("namespace", valid.error());
  PULGA_RETURN_IF_ERROR(CheckLabels("labels", record.labels));
  PULGA_RETURN_IF_ERROR(CheckLabels("annotations", record.annotations));
  const bool there = Find(record.name).ok() || creating_.contains(record.name);
  if (write == Write::kReplace) return there ? OkStatus() : Status(NoSuch(record.name));
  if (there) {
    return Error{Code::kAlreadyExists, 0, "namespace " + record.name + " already exists"};
  }
  if (rows_.size() + creating_.size() < kMostNamespaces) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "there are " + std::to_string(kMostNamespaces) + " namespaces already"};
}

void NamespaceService::Put(NamespaceRecord record, Write write, std::function<void(Status)> done) {
  Status fit = Check(record, write);
  if (!fit.ok()) return done(std::move(fit));
  if (write == Write::kCreate) creating_.insert(record.name);
  parts_.storage.Run([&store = parts_.store, record] { return store.PutNamespace(record); },
                     [this, record, write, done = std::move(done)](Status stored) {
                       if (write == Write::kCreate) creating_.erase(record.name);
                       if (stored.ok()) rows_[record.name] = record;
                       done(std::move(stored));
                     });
}

void NamespaceService::Remove(const std::string& name, std::function<void(Status)> done) {
  if (name == kDefaultNamespace) {
    return done(Error{Code::kInvalidArgument, 0,
                      "the default namespace, " + name + ", can not be removed"});
  }
  const auto found = Find(name);
  if (!found.ok()) return done(found.error());
  const size_t functions = CountIn(parts_.registry.functions(), name);
  const size_t secrets = CountIn(parts_.secrets.secrets(), name);
  if (functions + secrets != 0) {
    return done(Error{Code::kAlreadyExists, 0,
                      "namespace " + name + " has " + std::to_string(functions) +
                          " functions and " + std::to_string(secrets) +
                          " secrets: remove them first"});
  }
  parts_.storage.Run([&store = parts_.store, row = *found] { return store.DeleteNamespace(row); },
                     [this, name, done = std::move(done)](Status gone) {
                       if (gone.ok()) rows_.erase(name);
                       done(std::move(gone));
                     });
}

}  // namespace pulga
