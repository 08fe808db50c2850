// What a version asks for beyond its walls: a network, volumes, devices, capabilities; as plain
// values, and the rules that need neither board nor grants. Used by the daemon, to refuse with a
// good message, and by the launcher, which believes nobody. Pure.
// Source: docs/api.md "Function spec", docs/grants.md.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"

namespace pulga {

inline constexpr size_t kMaxNetworkRules = 64;
inline constexpr size_t kMaxVolumes = 16;
inline constexpr size_t kMaxDataSetLayers = 512;  // of all data sets of a version
inline constexpr size_t kMaxDevices = 16;
inline constexpr size_t kMaxAccessPath = 255;

enum class NetworkMode : uint8_t { kNone, kEgress, kHost };
enum class PeerKind : uint8_t { kIpv4, kIpv6, kName };
enum class NetworkProtocol : uint8_t { kTcp, kUdp };

// Whom a function may talk to; network_rule.h reads and writes its text.
struct NetworkRule {
  PeerKind peer = PeerKind::kIpv4;
  NetworkProtocol protocol = NetworkProtocol::kTcp;
  std::array<uint8_t, 16> address{};  // network order; IPv4: the first four; all zero for a name
  uint8_t prefix_bits = 0;            // of the address; bits behind them are zero
  std::string name;                   // lower case, without a trailing dot; "" for an address
  uint16_t first_port = 0;            // 0 and 0: any port
  uint16_t last_port = 0;             // included
  auto operator<=>(const NetworkRule&) const = default;
};

struct NetworkSpec {
  NetworkMode mode = NetworkMode::kNone;
  std::vector<NetworkRule> allow;  // egress only
  bool operator==(const NetworkSpec&) const = default;
};

enum class VolumeKind : uint8_t {
  kVolume,   // the owner's, by name
  kDataSet,  // shared, read-only, by name
  kHost,     // a directory of the host: by grant only
};

struct VolumeMount {
  VolumeKind kind = VolumeKind::kVolume;
  std::string source;  // a name, or the host's path
  std::string path;    // where the function sees it
  bool read_only = false;
  uint64_t size_bytes = 0;  // kVolume; 0 = not given
  // A version's alone: the layers of a kDataSet's image, base first. There `source` is no name any
  // more, but VolumeSource().
  std::vector<LayerId> layers = {};
  bool operator==(const VolumeMount&) const = default;
};

enum class LeaseKind : uint8_t { kByGrant, kExclusive, kShared };

// Text form: "gpio:/dev/gpiochip0" (the grant of that name) or "/dev/video0" (any grant).
struct DeviceRequest {
  std::string name;  // of the grant; "" = whichever has the path
  std::string path;  // below /dev
  LeaseKind lease = LeaseKind::kByGrant;
  bool operator==(const DeviceRequest&) const = default;
};

struct AccessSpec {
  NetworkSpec network;
  std::vector<VolumeMount> volumes;
  std::vector<DeviceRequest> devices;
  uint64_t capabilities = 0;  // bit N: the kernel's capability N
  bool operator==(const AccessSpec&) const = default;
};

// 1 to 63 of a-z, 0-9 and '-', as functions are called.
bool IsPlainName(std::string_view name);
// Absolute, without empty, "." or ".." components, control characters or a '/' at its end.
bool IsCleanPath(std::string_view path);

// "NET_BIND_SERVICE" (a "CAP_" in front is welcome) to the kernel's number, if it may be had.
std::optional<unsigned> CapabilityNumber(std::string_view name);
// By number, in order; without "CAP_".
std::vector<std::string> CapabilityNames(uint64_t capabilities);
std::string KnownCapabilities();  // for messages: "CHOWN, DAC_OVERRIDE, ..."

Result<DeviceRequest> ParseDevice(std::string_view text);
std::string FormatDevice(const DeviceRequest& device);  // without the lease

// kInvalidArgument; the message begins with the field: "volumes[1].path: ...".
Status CheckAccess(const AccessSpec& access);

}  // namespace pulga
