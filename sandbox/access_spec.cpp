#include "sandbox/access_spec.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "sandbox/network_rule.h"
#include "sandbox/volumes/volume_host.h"

namespace pulga {
namespace {

// What a function may have at all: nothing here reaches beyond its own user namespace.
constexpr std::pair<std::string_view, unsigned> kCapabilities[] = {
    {"CHOWN", 0},  {"DAC_OVERRIDE", 1}, {"FOWNER", 3},           {"KILL", 5},
    {"SETGID", 6}, {"SETUID", 7},       {"NET_BIND_SERVICE", 10}};

Error Bad(const std::string& field, const std::string& why) {
  return Error{Code::kInvalidArgument, 0, field + ": " + why};
}

std::string Entry(const char* field, size_t index) {
  return std::string(field) + "[" + std::to_string(index) + "]";
}

std::string Quoted(std::string_view text) { return "\"" + Printable(text, 80) + "\""; }

bool IsAtOrBelow(std::string_view path, std::string_view top) {
  return path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
}

Status CheckNetwork(const NetworkSpec& network) {
  if (network.mode > NetworkMode::kHost) return Bad("network.mode", "unknown");
  if (network.mode != NetworkMode::kEgress && !network.allow.empty()) {
    return Bad("network.allow", "only with \"mode\": \"egress\"");
  }
  if (network.allow.size() > kMaxNetworkRules) {
    return Bad("network.allow", std::to_string(network.allow.size()) + " entries are more than " +
                                    std::to_string(kMaxNetworkRules));
  }
  for (size_t i = 0; i < network.allow.size(); ++i) {
    const Status checked = CheckNetworkRule(network.allow[i]);
    if (!checked.ok()) return Prefix(Entry("network.allow", i), checked.error());
  }
  return OkStatus();
}

Status CheckVolumePath(const std::string& field, const std::string& path) {
  if (!IsCleanPath(path)) {
    return Bad(field, Quoted(path) + " is no absolute path without \"..\", \"//\" or a last \"/\"");
  }
  if (path == "/") return Bad(field, "the root itself can not be replaced");
  for (const std::string_view top : {"/proc", "/dev", "/sys", "/tmp", "/run"}) {
    if (IsAtOrBelow(path, top)) return Bad(field, Quoted(path) + " is the sandbox's own");
  }
  return OkStatus();
}

Status CheckVolumeSource(const std::string& field, const VolumeMount& volume) {
  if (volume.kind == VolumeKind::kHost) {
    if (IsCleanPath(volume.source) && volume.source != "/") return OkStatus();
    return Bad(field + ".host", Quoted(volume.source) + " is no absolute path of a directory");
  }
  if (IsPlainName(volume.source)) return OkStatus();
  return Bad(field + (volume.kind == VolumeKind::kDataSet ? ".data_set" : ".name"),
             Quoted(volume.source) +
                 " is no name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or "
                 "digit");
}

Status CheckVolume(const std::string& field, const VolumeMount& volume) {
  if (volume.kind > VolumeKind::kHost) return Bad(field, "unknown kind");
  PULGA_RETURN_IF_ERROR(CheckVolumeSource(field, volume));
  PULGA_RETURN_IF_ERROR(CheckVolumePath(field + ".path", volume.path));
  if (volume.kind == VolumeKind::kDataSet && !volume.read_only) {
    return Bad(field + ".read_only", "a data set is shared, so it is read-only");
  }
  if (volume.size_bytes == 0) return OkStatus();
  if (volume.kind != VolumeKind::kVolume) return Bad(field + ".size", "only volumes have a size");
  if (volume.size_bytes < kMinVolumeBytes || volume.size_bytes > kMaxVolumeBytes) {
    return Bad(field + ".size", FormatBytes(volume.size_bytes) + " is not between " +
                                    FormatBytes(kMinVolumeBytes) + " and " +
                                    FormatBytes(kMaxVolumeBytes));
  }
  return OkStatus();
}

Status CheckVolumes(const std::vector<VolumeMount>& volumes) {
  if (volumes.size() > kMaxVolumes) {
    return Bad("volumes",
               std::to_string(volumes.size()) + " are more than " + std::to_string(kMaxVolumes));
  }
  std::set<std::string> paths;
  size_t layers = 0;
  for (size_t i = 0; i < volumes.size(); ++i) {
    PULGA_RETURN_IF_ERROR(CheckVolume(Entry("volumes", i), volumes[i]));
    if (!paths.insert(volumes[i].path).second) {
      return Bad(Entry("volumes", i) + ".path", Quoted(volumes[i].path) + " is given twice");
    }
    layers += volumes[i].layers.size();
  }
  for (size_t i = 0; i < volumes.size(); ++i) {
    for (const VolumeMount& other : volumes) {
      if (&other == &volumes[i] || !IsAtOrBelow(volumes[i].path, other.path)) continue;
      return Bad(Entry("volumes", i) + ".path",
                 Quoted(volumes[i].path) + " is inside another volume, " + Quoted(other.path));
    }
  }
  if (layers > kMaxDataSetLayers) return Bad("volumes", "data sets of too many layers together");
  return OkStatus();
}

Status CheckDevice(const DeviceRequest& device) {
  if (!device.name.empty() && !IsPlainName(device.name)) {
    return Error{Code::kInvalidArgument, 0,
                 Quoted(device.name) + " is no name of a grant: a-z, 0-9 and '-'"};
  }
  if (!IsCleanPath(device.path) || !device.path.starts_with("/dev/")) {
    return Error{Code::kInvalidArgument, 0,
                 Quoted(device.path) +
                     " is no path below /dev: write \"/dev/video0\" or \"gpio:/dev/gpiochip0\""};
  }
  for (const std::string_view own :
       {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm"}) {
    if (!IsAtOrBelow(device.path, "/dev/" + std::string(own))) continue;
    return Error{Code::kInvalidArgument, 0, Quoted(device.path) + " is there without asking"};
  }
  if (device.lease <= LeaseKind::kShared) return OkStatus();
  return Error{Code::kInvalidArgument, 0, "unknown lease"};
}

Status CheckDevices(const std::vector<DeviceRequest>& devices) {
  if (devices.size() > kMaxDevices) {
    return Bad("devices",
               std::to_string(devices.size()) + " are more than " + std::to_string(kMaxDevices));
  }
  std::set<std::string> paths;
  for (size_t i = 0; i < devices.size(); ++i) {
    const Status checked = CheckDevice(devices[i]);
    if (!checked.ok()) return Prefix(Entry("devices", i), checked.error());
    if (!paths.insert(devices[i].path).second) {
      return Bad(Entry("devices", i), Quoted(devices[i].path) + " is given twice");
    }
  }
  return OkStatus();
}

}  // namespace

bool IsPlainName(std::string_view name) {
  if (name.empty() || name.size() > 63 || name.front() == '-' || name.back() == '-') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

bool IsCleanPath(std::string_view path) {
  if (path.empty() || path[0] != '/' || path.size() > kMaxAccessPath) return false;
  for (const char c : path) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  if (path == "/") return true;
  for (const std::string_view part : Split(path.substr(1), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

std::optional<unsigned> CapabilityNumber(std::string_view name) {
  if (name.starts_with("CAP_")) name.remove_prefix(4);
  for (const auto& [known, number] : kCapabilities) {
    if (name == known) return number;
  }
  return std::nullopt;
}

std::vector<std::string> CapabilityNames(uint64_t capabilities) {
  std::vector<std::string> names;
  for (const auto& [name, number] : kCapabilities) {
    if ((capabilities >> number & 1) != 0) names.emplace_back(name);
  }
  return names;
}

std::string KnownCapabilities() { return Join(CapabilityNames(UINT64_MAX), ", "); }

Result<DeviceRequest> ParseDevice(std::string_view text) {
  DeviceRequest device;
  const size_t colon = text.find(':');
  if (!text.starts_with('/') && colon != std::string_view::npos) {
    device.name = std::string(text.substr(0, colon));
    if (device.name.empty()) {
      return Error{Code::kInvalidArgument, 0, Quoted(text) + ": no name before the colon"};
    }
    text.remove_prefix(colon + 1);
  }
  device.path = std::string(text);
  PULGA_RETURN_IF_ERROR(CheckDevice(device));
  return device;
}

std::string FormatDevice(const DeviceRequest& device) {
  return device.name.empty() ? device.path : device.name + ":" + device.path;
}

Status CheckAccess(const AccessSpec& access) {
  PULGA_RETURN_IF_ERROR(CheckNetwork(access.network));
  PULGA_RETURN_IF_ERROR(CheckVolumes(access.volumes));
  PULGA_RETURN_IF_ERROR(CheckDevices(access.devices));
  uint64_t known = 0;
  for (const auto& [name, number] : kCapabilities) known |= 1ULL << number;
  if ((access.capabilities & ~known) != 0) {
    return Bad("capabilities", "only " + KnownCapabilities() + " can be had");
  }
  return OkStatus();
}

}  // namespace pulga
