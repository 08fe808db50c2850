// SecretService: secrets by name as the API sees them: written, listed, removed, and handed to
// versions. The names are mirrored in memory, the values are not: they are read, and opened, when a
// version is built. Loop thread; the vault works on the storage thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/work_queue.h"
#include "runtime/op_queue.h"
#include "runtime/secrets/secret.h"
#include "runtime/secrets/secret_vault.h"

namespace pulga {

struct SecretParts {
  EventLoop& loop;
  const Clock& clock;
  WorkQueue& storage;
  StateStore& store;
  std::string data_dir;
  // Names of the functions whose active version has this secret.
  std::function<std::vector<std::string>(const FunctionKey&)> users;
};

class SecretService {
 public:
  explicit SecretService(SecretParts parts);

  void Load(const std::vector<StoredSecret>& secrets);

  // kAlreadyExists (kCreate), kNotFound (kReplace), kTooLarge, kNoSpace.
  void Put(const FunctionKey& secret, std::string value, SecretWrite write,
           std::function<void(Result<SecretPut>)> done);
  // kAlreadyExists while a function has it, or is being deployed with it, unless forced: then what
  // lives keeps its value, and nothing new starts.
  void Remove(const FunctionKey& secret, SecretRemoval removal, std::function<void(Status)> done);
  std::vector<SecretView> List() const;  // by owner, namespace, name
  // The same, but that used_by is empty.
  const std::map<FunctionKey, SecretView>& secrets() const { return secrets_; }

  // Of a function being deployed: what it has is there, and stays for as long as the hold is kept.
  // kInvalidArgument: "unable to find secret: NAME", or they are too much together.
  using Hold = std::shared_ptr<void>;
  Result<Hold> HoldFor(const FunctionKey& function, const std::vector<std::string>& names);
  // The values, in this order. In order of calls with what Put() stores.
  void Reveal(const FunctionKey& function, const std::vector<std::string>& names,
              std::function<void(Result<std::vector<SecretFile>>)> done);
  // Called when a value is stored, before Put's own answer: of a new secret, too, which instances
  // may know from before it was removed.
  void SetOnChanged(std::function<void(const FunctionKey&)> on_changed) {
    on_changed_ = std::move(on_changed);
  }

 private:
  void PutNow(const FunctionKey& secret, std::string value, SecretWrite write,
              std::function<void(Result<SecretPut>)> done);
  void RemoveNow(const FunctionKey& secret, SecretRemoval removal,
                 std::function<void(Status)> done);
  std::string UserOf(const FunctionKey& secret) const;
  Status MayPut(const FunctionKey& secret, SecretWrite write) const;

  SecretParts parts_;
  SecretVault vault_;  // the storage thread's
  OpQueue ops_;
  std::map<FunctionKey, SecretView> secrets_;
  // Outlives holds that outlive us.
  std::shared_ptr<std::multiset<FunctionKey>> held_;
  std::function<void(const FunctionKey&)> on_changed_;
};

}  // namespace pulga
