#include "sandbox/granted_device.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <set>

#include "base/sys.h"

namespace pulga {
namespace {

std::string Entry(size_t index, const std::string& path) {
  return "devices[" + std::to_string(index) + "]: " + path;
}

// The wish's own word, else that of the first grant that fits.
LeaseKind LeaseOf(const DeviceRequest& wish, const Wishes& wishes, const Grants& grants) {
  if (wish.lease != LeaseKind::kByGrant) return wish.lease;
  for (const DeviceGrant& grant : grants.devices) {
    if (Fits(grant, wish, wishes.function)) return grant.lease;
  }
  return LeaseKind::kExclusive;
}

bool IsSame(const GrantedDevice& a, const GrantedDevice& b) {
  return a.kind == b.kind && a.number == b.number;
}

}  // namespace

Result<std::vector<GrantedDevice>> FindDevices(const Wishes& wishes, const Grants& grants,
                                               const std::string& host) {
  std::vector<GrantedDevice> devices;
  for (const DeviceRequest& wish : wishes.access.devices) {
    struct stat st = {};
    const std::string path = host + wish.path;
    if (PULGA_SYS(lstat, path.c_str(), &st) != 0) {
      Error error = LastError(Entry(devices.size(), wish.path));
      if (errno == ENOENT || errno == ENOTDIR) error.code = Code::kUnsupported;
      return error;
    }
    if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) {
      return Error{Code::kUnsupported, 0, Entry(devices.size(), wish.path) + " is no device"};
    }
    devices.push_back({wish.path, S_ISBLK(st.st_mode) ? DeviceKind::kBlock : DeviceKind::kCharacter,
                       st.st_rdev, LeaseOf(wish, wishes, grants)});
  }
  return devices;
}

Status CheckLeases(const DeviceHolder& wanted, std::span<const DeviceHolder> holders) {
  for (size_t i = 0; i < wanted.devices.size(); ++i) {
    const GrantedDevice& device = wanted.devices[i];
    for (const DeviceHolder& holder : holders) {
      if (holder.function == wanted.function) continue;
      for (const GrantedDevice& held : holder.devices) {
        if (!IsSame(device, held)) continue;
        if (device.lease == LeaseKind::kShared && held.lease == LeaseKind::kShared) continue;
        return Error{Code::kAlreadyExists, EBUSY,
                     Entry(i, device.path) + " is held by " + std::string(holder.function) +
                         (held.lease == LeaseKind::kExclusive ? " (exclusive)" : " (shared)")};
      }
    }
  }
  return OkStatus();
}

std::vector<MountEntry> DeviceMounts(std::span<const GrantedDevice> devices) {
  std::vector<MountEntry> plan;
  std::set<std::string> made = {"dev"};
  for (const GrantedDevice& device : devices) {
    const std::string target = device.path.substr(1);
    for (size_t at = target.find('/'); at != std::string::npos; at = target.find('/', at + 1)) {
      if (!made.insert(target.substr(0, at)).second) continue;
      plan.push_back({.kind = MountKind::kDirectory,
                      .target = target.substr(0, at),
                      .step = "make-device-directory"});
    }
    plan.push_back(
        {.kind = MountKind::kDevice,
         .source = device.path,
         .target = target,
         .device = device.number,
         .device_type = device.kind == DeviceKind::kBlock ? mode_t{S_IFBLK} : mode_t{S_IFCHR},
         .step = "make-device"});
  }
  return plan;
}

std::vector<DeviceRule> DeviceRules(std::span<const GrantedDevice> devices) {
  std::vector<DeviceRule> rules = HarmlessDevices();
  for (const GrantedDevice& device : devices) {
    rules.push_back({device.kind, major(device.number), minor(device.number)});
  }
  return rules;
}

}  // namespace pulga
