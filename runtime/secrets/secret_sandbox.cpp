#include "runtime/secrets/secret_sandbox.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace pulga {
namespace {

FunctionKey FunctionOf(const SecretUse& use) {
  const size_t slash = use.function.find('/');
  return {use.owner, use.function.substr(0, slash), use.function.substr(slash + 1)};
}

bool Uses(const SecretUse& use, const FunctionKey& secret) {
  const FunctionKey function = FunctionOf(use);
  return function.owner == secret.owner && function.name_space == secret.name_space &&
         std::find(use.names.begin(), use.names.end(), secret.name) != use.names.end();
}

}  // namespace

void SecretSandbox::SetService(SecretService& service) {
  service_ = &service;
  service.SetOnChanged([this, alive = std::weak_ptr(alive_)](const FunctionKey& secret) {
    if (!alive.expired()) OnChanged(secret);
  });
}

void SecretSandbox::BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) {
  if (spec.secrets.empty()) return sandbox_.BuildVersion(spec, events, std::move(done));
  const auto building = std::make_shared<Building>();
  building->use = {spec.version_id, spec.owner, spec.function, {}};
  for (const SecretFile& secret : spec.secrets) building->use.names.push_back(secret.name);
  building_.insert(building);
  service_->Reveal(FunctionOf(building->use), building->use.names,
                   [this, alive = std::weak_ptr(alive_), building, filled = spec, &events,
                    done = std::move(done)](Result<std::vector<SecretFile>> values) mutable {
                     if (alive.expired()) return;
                     if (!values.ok()) {
                       building_.erase(building);
                       return done(values.error());
                     }
                     filled.secrets = std::move(*values);
                     sandbox_.BuildVersion(filled, events,
                                           [this, alive, building, done = std::move(done)](
                                               Result<std::unique_ptr<Spawner>> built) {
                                             if (alive.expired()) return;
                                             building_.erase(building);
                                             if (built.ok() && building->changed)
                                               Update(building->use);
                                             done(std::move(built));
                                           });
                   });
}

void SecretSandbox::OnChanged(const FunctionKey& secret) {
  for (const auto& building : building_) {
    if (Uses(building->use, secret)) building->changed = true;
  }
  for (const SecretUse& use : sandbox_.SecretUses()) {
    if (Uses(use, secret)) Update(use);
  }
}

void SecretSandbox::Update(const SecretUse& use) {
  service_->Reveal(
      FunctionOf(use), use.names,
      [this, alive = std::weak_ptr(alive_), use](const Result<std::vector<SecretFile>>& values) {
        if (alive.expired()) return;
        if (values.ok()) return sandbox_.SetSecrets(use.version_id, *values);
        LogWarning("the instances of " + use.function +
                   " keep the secrets they have: " + values.error().message);
      });
}

}  // namespace pulga
