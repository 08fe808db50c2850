#include "runtime/function_registry.h"

#include <algorithm>

namespace pulga {
namespace {

Error NoSuchFunction(const FunctionKey& key) {
  return Error{Code::kNotFound, 0, "function " + key.name + " does not exist"};
}

}  // namespace

const FunctionEntry* FunctionRegistry::Find(const FunctionKey& key) const {
  const auto it = functions_.find(key);
  return it == functions_.end() ? nullptr : &it->second;
}

void FunctionRegistry::Load(const FunctionKey& key, FunctionEntry entry) {
  functions_[key] = std::move(entry);
}

void FunctionRegistry::Activate(const VersionPtr& version, const std::vector<uint64_t>& forgotten) {
  FunctionEntry& entry = functions_[version->key];
  entry.active = version;
  entry.trouble.clear();
  std::erase_if(entry.versions, [&](const VersionPtr& old) {
    return old->number == version->number ||
           std::find(forgotten.begin(), forgotten.end(), old->id) != forgotten.end();
  });
  entry.versions.push_back(version);
  std::sort(entry.versions.begin(), entry.versions.end(),
            [](const VersionPtr& a, const VersionPtr& b) { return a->number > b->number; });
}

void FunctionRegistry::SetTrouble(const FunctionKey& key, std::string trouble) {
  const auto it = functions_.find(key);
  if (it != functions_.end()) it->second.trouble = std::move(trouble);
}

void FunctionRegistry::Erase(const FunctionKey& key) { functions_.erase(key); }

Result<VersionPtr> FunctionRegistry::RollbackTarget(const FunctionKey& key,
                                                    std::optional<uint32_t> number) const {
  const FunctionEntry* entry = Find(key);
  if (entry == nullptr) return NoSuchFunction(key);
  const uint32_t active = entry->active->number;
  if (number && *number == active) {
    return Error{Code::kInvalidArgument, 0,
                 "version " + std::to_string(active) + " of " + key.name + " is active already"};
  }
  for (const VersionPtr& version : entry->versions) {  // highest number first
    if (number ? version->number == *number : version->number < active) return version;
  }
  if (number) {
    return Error{
        Code::kNotFound, 0,
        key.name + " has no version " + std::to_string(*number) + " (pulga describe lists them)"};
  }
  return Error{Code::kNotFound, 0, key.name + " has no version before " + std::to_string(active)};
}

void FunctionRegistry::Release(const std::string& digest) {
  const auto it = reserved_.find(digest);
  if (it != reserved_.end()) reserved_.erase(it);
}

std::string FunctionRegistry::UserOf(const std::string& image_digest) const {
  for (const auto& [key, entry] : functions_) {
    for (const VersionPtr& version : entry.versions) {
      if (version->image_digest != image_digest) continue;
      return "function " + key.name + " (version " + std::to_string(version->number) + ")";
    }
  }
  return reserved_.contains(image_digest) ? "a function being deployed or removed" : "";
}

std::vector<std::string> FunctionRegistry::UsersOfVolume(const FunctionKey& volume) const {
  std::vector<std::string> names;
  for (const auto& [key, entry] : functions_) {
    if (key.owner != volume.owner || key.name_space != volume.name_space) continue;
    const auto& mounts = entry.active->spec.access.volumes;
    if (std::any_of(mounts.begin(), mounts.end(), [&](const VolumeMount& mount) {
          return mount.kind != VolumeKind::kHost && mount.source == volume.name;
        })) {
      names.push_back(key.name);
    }
  }
  return names;
}

std::vector<std::string> FunctionRegistry::UsersOfSecret(const FunctionKey& secret) const {
  std::vector<std::string> names;
  for (const auto& [key, entry] : functions_) {
    if (key.owner != secret.owner || key.name_space != secret.name_space) continue;
    const std::vector<std::string>& secrets = entry.active->spec.secrets;
    if (std::find(secrets.begin(), secrets.end(), secret.name) != secrets.end()) {
      names.push_back(key.name);
    }
  }
  return names;
}

}  // namespace pulga
