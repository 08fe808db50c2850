#include "sandbox/grants.h"

#include <algorithm>

namespace pulga {
namespace {

Error Missing(const std::string& field, const std::string& what, const std::string& line) {
  return Error{Code::kUnsupported, 0,
               field + ": " + what + " needs a line \"" + line +
                   "\" in this board's grants.conf, which only its administrator can write"};
}

std::string ForFunction(const Wishes& wishes) {
  return " functions=" + (wishes.function.empty() ? "*" : wishes.function);
}

// The first that fits, or nullptr.
template <typename Grant>
const Grant* FindFit(const std::vector<Grant>& grants, const auto& fits) {
  const auto found = std::find_if(grants.begin(), grants.end(), fits);
  return found == grants.end() ? nullptr : &*found;
}

bool IsAtOrBelow(std::string_view path, std::string_view top) {
  return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

const CapabilityGrant* FindCapability(const std::string& name, const Wishes& wishes,
                                      const Grants& grants) {
  return FindFit(grants.capabilities, [&](const CapabilityGrant& grant) {
    return grant.capability == CapabilityNumber(name) && grant.to.Includes(wishes.function);
  });
}

const HostNetworkGrant* FindHostNetwork(const Wishes& wishes, const Grants& grants) {
  return FindFit(grants.host_networks,
                 [&](const HostNetworkGrant& grant) { return grant.to.Includes(wishes.function); });
}

const HostDirectoryGrant* FindHostDirectory(const VolumeMount& volume, const Wishes& wishes,
                                            const Grants& grants) {
  return FindFit(grants.host_directories, [&](const HostDirectoryGrant& grant) {
    return IsAtOrBelow(volume.source, grant.path) && grant.to.Includes(wishes.function) &&
           (volume.read_only || grant.use == HostDirectoryUse::kReadWrite);
  });
}

const DeviceGrant* FindDevice(const DeviceRequest& device, const Wishes& wishes,
                              const Grants& grants) {
  return FindFit(grants.devices,
                 [&](const DeviceGrant& grant) { return Fits(grant, device, wishes.function); });
}

Status CheckHostDirectory(const std::string& field, const VolumeMount& volume, const Wishes& wishes,
                          const Grants& grants) {
  if (FindHostDirectory(volume, wishes, grants) != nullptr) return OkStatus();
  return Missing(field, volume.source,
                 "host-directory " + volume.source +
                     (volume.read_only ? " read-only" : " read-write") + ForFunction(wishes));
}

Status CheckDevice(const std::string& field, const DeviceRequest& device, const Wishes& wishes,
                   const Grants& grants) {
  if (FindDevice(device, wishes, grants) != nullptr) return OkStatus();
  const std::string name = device.name.empty() ? "NAME" : device.name;
  const std::string lease = device.lease == LeaseKind::kShared ? " lease=shared" : "";
  return Missing(field, device.path,
                 "device " + name + " " + device.path + ForFunction(wishes) + lease);
}

void AddUsed(std::string& used, const std::string& what, const auto* grant) {
  if (grant == nullptr) return;
  used +=
      (used.empty() ? "" : ", ") + what + " (grants.conf:" + std::to_string(grant->to.line) + ")";
}

}  // namespace

bool GrantedTo::Includes(std::string_view function) const {
  return everyone || std::find(functions.begin(), functions.end(), function) != functions.end();
}

std::string FormatOwner(const HostOwner& owner) {
  return std::to_string(owner.uid) + ":" + std::to_string(owner.gid);
}

bool Fits(const DeviceGrant& grant, const DeviceRequest& wish, std::string_view function) {
  return grant.path == wish.path && (wish.name.empty() || grant.name == wish.name) &&
         grant.to.Includes(function) &&
         (wish.lease != LeaseKind::kShared || grant.lease == LeaseKind::kShared);
}

Status CheckAgainstGrants(const Wishes& wishes, const Grants& grants) {
  for (const std::string& name : CapabilityNames(wishes.access.capabilities)) {
    if (FindCapability(name, wishes, grants) != nullptr) continue;
    return Missing("capabilities", name, "capability " + name + ForFunction(wishes));
  }
  if (wishes.access.network.mode == NetworkMode::kHost &&
      FindHostNetwork(wishes, grants) == nullptr) {
    return Missing("network.mode", "\"host\"", "network host" + ForFunction(wishes));
  }
  for (size_t i = 0; i < wishes.access.volumes.size(); ++i) {
    if (wishes.access.volumes[i].kind != VolumeKind::kHost) continue;
    PULGA_RETURN_IF_ERROR(CheckHostDirectory("volumes[" + std::to_string(i) + "].host",
                                             wishes.access.volumes[i], wishes, grants));
  }
  for (size_t i = 0; i < wishes.access.devices.size(); ++i) {
    PULGA_RETURN_IF_ERROR(CheckDevice("devices[" + std::to_string(i) + "]",
                                      wishes.access.devices[i], wishes, grants));
  }
  return OkStatus();
}

std::vector<std::optional<HostOwner>> FindHostOwners(const Wishes& wishes, const Grants& grants) {
  std::vector<std::optional<HostOwner>> owners;
  for (const VolumeMount& volume : wishes.access.volumes) {
    const bool of_host = volume.kind == VolumeKind::kHost;
    const auto* grant = of_host ? FindHostDirectory(volume, wishes, grants) : nullptr;
    owners.push_back(grant == nullptr ? std::nullopt : grant->owner);
  }
  return owners;
}

GrantsUsed FindGrantsUsed(const Wishes& wishes, const Grants& grants) {
  GrantsUsed used;
  for (const std::string& name : CapabilityNames(wishes.access.capabilities)) {
    AddUsed(used.capabilities, name, FindCapability(name, wishes, grants));
  }
  if (wishes.access.network.mode == NetworkMode::kHost) {
    AddUsed(used.network, "the host's", FindHostNetwork(wishes, grants));
  }
  for (const VolumeMount& volume : wishes.access.volumes) {
    if (volume.kind != VolumeKind::kHost) continue;
    const HostDirectoryGrant* grant = FindHostDirectory(volume, wishes, grants);
    const bool owned = grant != nullptr && grant->owner;
    const std::string as = owned ? " as " + FormatOwner(*grant->owner) : "";
    AddUsed(used.host_directories, volume.source + as, grant);
  }
  for (const DeviceRequest& device : wishes.access.devices) {
    AddUsed(used.devices, device.path, FindDevice(device, wishes, grants));
  }
  return used;
}

}  // namespace pulga
