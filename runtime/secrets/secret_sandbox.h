// SecretSandbox: a Sandbox that gives versions the values of their secrets before they are built,
// and new ones while they live. Everything else it passes on. Loop thread.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "runtime/secrets/secret_service.h"
#include "sandbox/sandbox.h"

namespace pulga {

class SecretSandbox final : public Sandbox {
 public:
  explicit SecretSandbox(Sandbox& sandbox) : sandbox_(sandbox) {}
  // Before the first build of a version that has secrets.
  void SetService(SecretService& service);

  bool available() const override { return sandbox_.available(); }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) override;
  std::vector<SecretUse> SecretUses() const override { return sandbox_.SecretUses(); }
  void SetSecrets(uint64_t version_id, const std::vector<SecretFile>& secrets) override {
    sandbox_.SetSecrets(version_id, secrets);
  }
  uint64_t RunUnpack(UnpackJob job, std::function<void(Status)> done) override {
    return sandbox_.RunUnpack(std::move(job), std::move(done));
  }
  void CancelUnpack(uint64_t job) override { sandbox_.CancelUnpack(job); }
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) override {
    sandbox_.ListLayers(std::move(done));
  }

 private:
  // A build whose values were read, and whether one of them changed since.
  struct Building {
    SecretUse use;
    bool changed = false;
  };
  void OnChanged(const FunctionKey& secret);
  void Update(const SecretUse& use);

  Sandbox& sandbox_;
  SecretService* service_ = nullptr;
  std::set<std::shared_ptr<Building>> building_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace pulga
