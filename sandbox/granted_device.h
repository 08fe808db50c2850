// The devices a version was granted: found on the host by the launcher, leased to its function, put
// into its /dev by the set-up child. FindDevices looks at the host's /dev; the rest is pure.
// Source: docs/grants.md, "Devices".
#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sandbox/device_program.h"
#include "sandbox/grants.h"
#include "sandbox/mount_plan.h"

namespace pulga {

struct GrantedDevice {
  std::string path;
  DeviceKind kind = DeviceKind::kCharacter;
  dev_t number = 0;
  LeaseKind lease = LeaseKind::kExclusive;  // never kByGrant
};

// Of wishes that CheckAgainstGrants has passed, in their order. kUnsupported names the device that
// is not there, or is none. `host` stands in front of each path, for tests.
Result<std::vector<GrantedDevice>> FindDevices(const Wishes& wishes, const Grants& grants,
                                               const std::string& host = "");

// Who has which devices now. Versions of one function share what they hold.
struct DeviceHolder {
  std::string_view function;
  std::span<const GrantedDevice> devices;
};
// kAlreadyExists with EBUSY: names the device and who holds it.
Status CheckLeases(const DeviceHolder& wanted, std::span<const DeviceHolder> holders);

// The nodes, and directories to hold them, inside the version's /dev.
std::vector<MountEntry> DeviceMounts(std::span<const GrantedDevice> devices);
// These and the harmless ones.
std::vector<DeviceRule> DeviceRules(std::span<const GrantedDevice> devices);

}  // namespace pulga
