// Namespaces of functions, with what OpenFaaS' clients attach to them. The default one is always
// there, and so is one that has functions or secrets. Loop thread; rows are written before `done`
// is called.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/owner.h"
#include "base/result.h"

namespace pulga {

struct NamespaceRecord {
  std::string owner = kDefaultOwner;
  std::string name;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
};

class Namespaces {
 public:
  virtual ~Namespaces() = default;
  virtual std::vector<NamespaceRecord> List() const = 0;                    // by name
  virtual Result<NamespaceRecord> Find(const std::string& name) const = 0;  // kNotFound
  enum class Write { kCreate, kReplace };
  // kAlreadyExists, kNotFound; kInvalidArgument for names and labels that are none; kNoSpace.
  virtual void Put(NamespaceRecord record, Write write, std::function<void(Status)> done) = 0;
  // kNotFound; kAlreadyExists while functions or secrets are in it; kInvalidArgument for the
  // default one.
  virtual void Remove(const std::string& name, std::function<void(Status)> done) = 0;
};

}  // namespace pulga
