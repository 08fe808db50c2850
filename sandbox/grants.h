// What the administrator lets functions have beyond their walls: typed lines of grants.conf, and
// the judgement of a version by them. The launcher alone reads and judges; the daemon only chooses
// and may be lying about whose version it is, so no function ever gets more than the lines of all.
// Pure. Source: docs/grants.md.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sandbox/access_spec.h"

namespace pulga {

// "functions=*", or a list of "NAMESPACE/NAME".
struct GrantedTo {
  bool everyone = false;
  std::vector<std::string> functions;
  size_t line = 0;  // of grants.conf, from 1
  bool Includes(std::string_view function) const;
};

struct CapabilityGrant {
  unsigned capability = 0;
  GrantedTo to;
};

struct HostNetworkGrant {
  GrantedTo to;
};

// A user of the host and one of its groups.
struct HostOwner {
  uid_t uid = 0;
  gid_t gid = 0;
  bool operator==(const HostOwner&) const = default;
};

enum class HostDirectoryUse : uint8_t { kReadOnly, kReadWrite };
struct HostDirectoryGrant {
  std::string path;  // this directory and what is below it
  HostDirectoryUse use = HostDirectoryUse::kReadOnly;
  GrantedTo to;
  std::optional<HostOwner> owner = {};  // whom the function's user is there; none: nobody
};

struct DeviceGrant {
  std::string name;  // "gpio"
  std::string path;
  LeaseKind lease = LeaseKind::kExclusive;  // never kByGrant
  GrantedTo to;
};

std::string FormatOwner(const HostOwner& owner);  // "1000:1000"

// Does the grant give this function that device, as it wants to lease it?
bool Fits(const DeviceGrant& grant, const DeviceRequest& wish, std::string_view function);

// As written, without its comment.
struct GrantLine {
  size_t number = 0;  // from 1
  std::string text;
  bool operator==(const GrantLine&) const = default;
};

struct Grants {
  std::vector<CapabilityGrant> capabilities;
  std::vector<HostNetworkGrant> host_networks;
  std::vector<HostDirectoryGrant> host_directories;
  std::vector<DeviceGrant> devices;
};

// What of a version is judged.
struct Wishes {
  std::string function;
  AccessSpec access;
};

// kUnsupported: names the field and the line of grants.conf that is missing.
Status CheckAgainstGrants(const Wishes& wishes, const Grants& grants);

// One for each volume that is asked for: as whom the grant of a host directory lets it be used.
std::vector<std::optional<HostOwner>> FindHostOwners(const Wishes& wishes, const Grants& grants);

// What of the grants a version lives on, for the isolation report: "SETUID (grants.conf:3)", each
// "" when nothing.
struct GrantsUsed {
  std::string capabilities, network, devices, host_directories;
};
GrantsUsed FindGrantsUsed(const Wishes& wishes, const Grants& grants);

}  // namespace pulga
