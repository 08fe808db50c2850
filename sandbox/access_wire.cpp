#include "sandbox/access_wire.h"

#include <cstring>
#include <string>

#include "base/unpack_job.h"

namespace pulga {
namespace {

constexpr size_t kMaxHostName = 253;
constexpr size_t kMaxName = 63;

Error Invalid(const char* message) { return Error{Code::kInvalidArgument, 0, message}; }

void PutRule(WireWriter& writer, const NetworkRule& rule) {
  NetworkRuleBody body = {};
  memcpy(body.address, rule.address.data(), sizeof body.address);
  body.first_port = rule.first_port;
  body.last_port = rule.last_port;
  body.name_bytes = static_cast<uint16_t>(rule.name.size());
  body.peer = static_cast<uint8_t>(rule.peer);
  body.protocol = static_cast<uint8_t>(rule.protocol);
  body.prefix_bits = rule.prefix_bits;
  writer.Put(body);
  writer.PutBytes(rule.name);
}

void PutVolume(WireWriter& writer, const VolumeMount& volume) {
  VolumeBody body = {};
  body.size_bytes = volume.size_bytes;
  body.source_bytes = static_cast<uint16_t>(volume.source.size());
  body.path_bytes = static_cast<uint16_t>(volume.path.size());
  body.kind = static_cast<uint8_t>(volume.kind);
  body.read_only = volume.read_only ? 1 : 0;
  body.layers = static_cast<uint16_t>(volume.layers.size());
  writer.Put(body);
  writer.PutBytes(volume.source);
  writer.PutBytes(volume.path);
  for (const LayerId& layer : volume.layers) writer.Put(layer.bytes);
}

void PutDevice(WireWriter& writer, const DeviceRequest& device) {
  DeviceBody body = {};
  body.name_bytes = static_cast<uint16_t>(device.name.size());
  body.path_bytes = static_cast<uint16_t>(device.path.size());
  body.lease = static_cast<uint8_t>(device.lease);
  writer.Put(body);
  writer.PutBytes(device.name);
  writer.PutBytes(device.path);
}

Result<NetworkRule> TakeRule(WireReader& reader) {
  const auto body = reader.Take<NetworkRuleBody>();
  if (body.name_bytes > kMaxHostName || body.zero != 0) return Invalid("network.allow: an entry");
  NetworkRule rule;
  memcpy(rule.address.data(), body.address, sizeof body.address);
  rule.first_port = body.first_port;
  rule.last_port = body.last_port;
  rule.peer = static_cast<PeerKind>(body.peer);
  rule.protocol = static_cast<NetworkProtocol>(body.protocol);
  rule.prefix_bits = body.prefix_bits;
  rule.name = std::string(reader.TakeBytes(body.name_bytes));
  return rule;
}

Result<VolumeMount> TakeVolume(WireReader& reader) {
  const auto body = reader.Take<VolumeBody>();
  if (body.source_bytes > kMaxAccessPath || body.path_bytes > kMaxAccessPath ||
      body.read_only > 1 || body.layers > kMaxLayers) {
    return Invalid("volumes: an entry");
  }
  VolumeMount volume;
  volume.kind = static_cast<VolumeKind>(body.kind);
  volume.read_only = body.read_only == 1;
  volume.size_bytes = body.size_bytes;
  volume.source = std::string(reader.TakeBytes(body.source_bytes));
  volume.path = std::string(reader.TakeBytes(body.path_bytes));
  for (unsigned i = 0; i < body.layers; ++i) {
    LayerId layer;
    layer.bytes = reader.Take<decltype(layer.bytes)>();
    volume.layers.push_back(layer);
  }
  return volume;
}

Result<DeviceRequest> TakeDevice(WireReader& reader) {
  const auto body = reader.Take<DeviceBody>();
  if (body.name_bytes > kMaxName || body.path_bytes > kMaxAccessPath || body.zero != 0) {
    return Invalid("devices: an entry");
  }
  DeviceRequest device;
  device.lease = static_cast<LeaseKind>(body.lease);
  device.name = std::string(reader.TakeBytes(body.name_bytes));
  device.path = std::string(reader.TakeBytes(body.path_bytes));
  return device;
}

}  // namespace

void PutAccess(WireWriter& writer, const AccessSpec& access) {
  AccessHeader header = {};
  header.capabilities = access.capabilities;
  header.rules = static_cast<uint16_t>(access.network.allow.size());
  header.volumes = static_cast<uint16_t>(access.volumes.size());
  header.devices = static_cast<uint16_t>(access.devices.size());
  header.network_mode = static_cast<uint8_t>(access.network.mode);
  writer.Put(header);
  for (const NetworkRule& rule : access.network.allow) PutRule(writer, rule);
  for (const VolumeMount& volume : access.volumes) PutVolume(writer, volume);
  for (const DeviceRequest& device : access.devices) PutDevice(writer, device);
}

Result<AccessSpec> TakeAccess(WireReader& reader) {
  const auto header = reader.Take<AccessHeader>();
  if (header.rules > kMaxNetworkRules || header.volumes > kMaxVolumes ||
      header.devices > kMaxDevices || header.zero != 0) {
    return Invalid("too many network rules, volumes or devices");
  }
  AccessSpec access;
  access.capabilities = header.capabilities;
  access.network.mode = static_cast<NetworkMode>(header.network_mode);
  for (unsigned i = 0; i < header.rules; ++i) {
    PULGA_ASSIGN_OR_RETURN(NetworkRule rule, TakeRule(reader));
    access.network.allow.push_back(std::move(rule));
  }
  for (unsigned i = 0; i < header.volumes; ++i) {
    PULGA_ASSIGN_OR_RETURN(VolumeMount volume, TakeVolume(reader));
    access.volumes.push_back(std::move(volume));
  }
  for (unsigned i = 0; i < header.devices; ++i) {
    PULGA_ASSIGN_OR_RETURN(DeviceRequest device, TakeDevice(reader));
    access.devices.push_back(std::move(device));
  }
  return access;
}

}  // namespace pulga
