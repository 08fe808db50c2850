// The set-up child of a version: cgroups, skeleton, overlay, template mounts, pivot_root, and the
// clone of the spawner, which becomes the launcher's own child (CLONE_PARENT). Root over the host
// until it exits; it parses nothing that came from outside but the names of directories.
// Runs in a process of its own and never returns. Reports kStarted, or kFailed naming the step;
// what it mounted dies with its mount namespace, what it made in cgroups the launcher removes.
#pragma once

#include <optional>

#include "base/root_switch.h"
#include "base/unique_fd.h"
#include "net/ipv4.h"
#include "sandbox/apparmor.h"
#include "sandbox/cgroup.h"
#include "sandbox/granted_device.h"
#include "sandbox/id_ranges.h"
#include "sandbox/sandbox.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

inline constexpr const char* kBuildDirectory = ".mnt";  // below layers/: an empty mount point

struct VersionBuild {
  VersionSpec spec;
  std::vector<GrantedDevice> devices;
  std::vector<std::optional<HostOwner>> host_owners;  // one for each volume
  HostIds ids;
  CgroupTree* cgroups = nullptr;
  DeviceNumber disk;
  AppArmorUse apparmor = AppArmorUse::kAuto;
  const VolumesDir* volumes = nullptr;
  int layers_fd = -1;  // the launcher's fd of the layers directory
  int socket_fd = -1;  // the spawner's end of its socket to the daemon
  int records_fd = -1;
  int report_fd = -1;
  int lifeline_fd = -1;                           // end of file when the launcher is gone
  int attach_fd = -1;                             // http with outbound network: attach_protocol.h
  std::optional<Ipv4> router;                     // with outbound network
  RootSwitch root_switch = RootSwitch::kPivoted;  // how it came out
};

[[noreturn]] void BuildVersionAndExit(VersionBuild build);

}  // namespace pulga
