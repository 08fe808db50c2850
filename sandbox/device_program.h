// Which devices a version may open, on cgroup v2: a BPF program made of the rules (pure), and its
// attachment to a cgroup (launcher's set-up child; needs root over the host).
// Source: kernel Documentation/admin-guide/cgroup-v2.rst "Device controller", linux/bpf.h.
#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace pulga {

enum class DeviceKind : uint8_t { kCharacter, kBlock };

// May be opened for reading and writing; never made.
struct DeviceRule {
  DeviceKind kind = DeviceKind::kCharacter;
  uint32_t major = 0;
  uint32_t minor = 0;
  bool operator==(const DeviceRule&) const = default;
};

// null, zero, full, random, urandom: what every function has.
std::vector<DeviceRule> HarmlessDevices();

// Returns 1 for what a rule allows, else 0.
std::vector<bpf_insn> MakeDeviceProgram(std::span<const DeviceRule> rules);
// For the cgroup and all below it, as long as it exists. kUnsupported where this kernel has no such
// programs or does not let us.
Status AttachDeviceProgram(int cgroup_dir, std::span<const bpf_insn> program);

}  // namespace pulga
