// What this kernel and board offer, found by trying, never by version number. For `pulga doctor`,
// GET /v1/system and the choice of fall-backs. Runs without root too: what only root can find out
// is kUnknown then. Forks short-lived children; takes some 10 ms; leaves nothing behind. Blocks: at
// start-up and in the CLI only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/cgroup_layout.h"

namespace pulga {

enum class FeatureState : uint8_t { kPresent, kDegraded, kAbsent, kUnknown };
std::string_view FeatureStateName(FeatureState state);  // "present", "degraded", ...

struct Feature {
  std::string name;  // stable: "namespace.user", "cgroup.memory", "seccomp", "board.cores"
  FeatureState state = FeatureState::kUnknown;
  std::string detail;  // what was seen: "v1", "4096", "EPERM"
  std::string advice;  // what to do about it; empty when nothing
};

// kUser: for a daemon an ordinary user, the caller, would start (doctor without root).
std::vector<Feature> ProbeKernelFeatures(CgroupsFor whose = CgroupsFor::kOwn);
// How many client connections a limit of open files has room for: two descriptors each (its own and
// its function's), beside a reserve for instances, imports and what the daemon itself holds open.
uint32_t ConnectionsWithin(uint64_t open_files);
inline constexpr uint32_t kUsualConnections = 1024;  // the default of max-connections
// Of a kernel's release, as uname(2) has it: whether what is read from a loop device counts for who
// reads, on the disk behind it too (Linux 5.14).
bool LoopChargesReaders(std::string_view release);
// nullptr when there is none of that name.
const Feature* FindFeature(const std::vector<Feature>& features, std::string_view name);

}  // namespace pulga
